// Acknowledge a deviation with a comment: somebody has seen it. It closes nothing and releases nothing.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef } from "react";
import { ApiError, post } from "../../api/client";
import type { Deviation } from "../../api/types";
import { usePlant } from "../../components/plant";
import { problemWords } from "../../components/state";
import { when } from "../../format";
import { store } from "../../live/store";
import { deviationMeasure, deviationWords } from "../plant_ops/act_now";

export const ACKNOWLEDGE = "deviation.acknowledge";

export function AcknowledgeDialog({ deviation, onClose }: { deviation: Deviation; onClose: () => void }) {
  const { zone } = usePlant();
  const dialog = useRef<HTMLDialogElement>(null);
  const client = useQueryClient();
  const acknowledge = useMutation({
    mutationFn: (comment: string) =>
      post<Deviation>(`fsq/deviations/${encodeURIComponent(deviation.id)}/acknowledge`, { comment }),
    onSuccess: () => dialog.current?.close(),
    onSettled: () => client.invalidateQueries({ queryKey: ["deviations"] }),
  });
  useEffect(() => dialog.current?.showModal(), []);
  const error = acknowledge.error;
  const is_changed = error instanceof ApiError && error.status === 409;
  return (
    <dialog ref={dialog} className="dialog" aria-labelledby="acknowledge-title" onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          acknowledge.mutate(String(new FormData(event.currentTarget).get("comment") ?? "").trim());
        }}
      >
        <h2 id="acknowledge-title">Acknowledge: {deviationWords(deviation)}</h2>
        <p>
          {deviationMeasure(deviation)}; since {when(deviation.window_from_us, store.nowUs(), zone)}.{" "}
          {deviation.hold_code === null ? "No product is held." : `Product is held under ${deviation.hold_code}.`}
        </p>
        <p className="quiet">This records that you have seen it. The deviation and the hold stay open.</p>
        <label>
          Comment (what you do about it)
          <textarea name="comment" required minLength={3} maxLength={2000} rows={3} autoFocus />
        </label>
        <div role="alert">
          {error !== null && (
            <p className="problem">
              {is_changed ? `Not acknowledged: ${error.message}.` : `${problemWords(error)}.`}
            </p>
          )}
        </div>
        <p className="buttons">
          <button type="button" className="button" onClick={() => dialog.current?.close()}>
            Cancel
          </button>
          <button type="submit" className="button primary" disabled={acknowledge.isPending}>
            {acknowledge.isPending ? "Acknowledging…" : "Acknowledge"}
          </button>
        </p>
      </form>
    </dialog>
  );
}
