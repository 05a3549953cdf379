// A forgotten password: ask for a link, or set a new password with the token that the link carries. The same link
// serves an invitation; a link that only confirms an address has a page of its own.
import { Link, useSearch } from "@tanstack/react-router";
import { useEffect, useState, type FormEvent, type ReactNode } from "react";
import { ApiError, post } from "../../api/client";
import { problemWords } from "../../components/state";
import { useTitle } from "../../components/use_title";
import { lastTenant } from "../../session";

type Progress = { kind: "asking" } | { kind: "busy" } | { kind: "done" } | { kind: "failed"; words: string };

function words(error: unknown): string {
  if (error instanceof ApiError && error.status === 401) return "The link has been used or is too old. Ask for a new one.";
  if (error instanceof ApiError && error.status === 429) return "Too many attempts. Wait a minute, then try again.";
  return `${problemWords(error)}.`;
}

/** Sends one form and remembers how it went. */
function useSending(path: string): [Progress, (body: unknown) => Promise<void>] {
  const [progress, setProgress] = useState<Progress>({ kind: "asking" });
  const send = async (body: unknown): Promise<void> => {
    setProgress({ kind: "busy" });
    try {
      await post(path, body, true);
      setProgress({ kind: "done" });
    } catch (error) {
      setProgress({ kind: "failed", words: words(error) });
    }
  };
  return [progress, send];
}

function Outcome({ progress, done }: { progress: Progress; done: string }) {
  return (
    <div role="alert">
      {progress.kind === "failed" && <p className="problem">{progress.words}</p>}
      {progress.kind === "done" && <p>{done}</p>}
    </div>
  );
}

function Frame({ title, children }: { title: string; children: ReactNode }) {
  useTitle(title);
  return (
    <main className="sign-in">
      <h1>{title}</h1>
      {children}
      <Link to="/login">Back to sign in</Link>
    </main>
  );
}

export function RecoverPage() {
  const { token, tenant } = useSearch({ from: "/recover" });
  return token === undefined ? <AskForLink /> : <NewPassword token={token} tenant={tenant} />;
}

function AskForLink() {
  const [progress, send] = useSending("auth/password-reset/initiate");
  const ask = (event: FormEvent<HTMLFormElement>): void => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    void send({ tenant: String(form.get("tenant")).trim(), email: String(form.get("email")).trim() });
  };
  return (
    <Frame title="Forgotten password">
      <form onSubmit={ask} aria-label="Ask for a link">
        <label>
          Tenant
          <input name="tenant" autoCapitalize="none" required maxLength={40} defaultValue={lastTenant()} />
        </label>
        <label>
          E-mail
          <input name="email" type="email" autoComplete="username" required maxLength={254} />
        </label>
        <Outcome progress={progress} done="If there is such an account, a link is on its way to it." />
        <button type="submit" className="button primary" disabled={progress.kind === "busy"}>
          Send a link
        </button>
      </form>
    </Frame>
  );
}

function NewPassword({ token, tenant }: { token: string; tenant: string | undefined }) {
  const [progress, send] = useSending("auth/password-reset/confirm");
  const set = (event: FormEvent<HTMLFormElement>): void => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    void send({ tenant: tenant ?? lastTenant(), token, new_password: String(form.get("password")) });
  };
  return (
    <Frame title="New password">
      <form onSubmit={set} aria-label="Set a new password">
        <label>
          New password, at least 10 characters
          <input name="password" type="password" autoComplete="new-password" required minLength={10} maxLength={1024} />
        </label>
        <Outcome progress={progress} done="The password is set. Sign in with it." />
        <button type="submit" className="button primary" disabled={progress.kind === "busy" || progress.kind === "done"}>
          Set password
        </button>
      </form>
    </Frame>
  );
}

export function VerifyEmailPage() {
  const { token, tenant } = useSearch({ from: "/verify-email" });
  const [progress, send] = useSending("auth/verify-email");
  const [was_asked, setAsked] = useState(false);
  useEffect(() => {
    if (was_asked || token === undefined) return;
    setAsked(true);
    void send({ tenant: tenant ?? lastTenant(), token });
  }, [was_asked, token, tenant, send]);
  return (
    <Frame title="Confirm your address">
      {token === undefined && <p className="problem" role="alert">The link is not whole. Copy all of it.</p>}
      <Outcome progress={progress} done="The address is confirmed. You can sign in." />
    </Frame>
  );
}
