// What do others' devices send that is no tag yet, what were they told is wrong, and who of them is there?
import { useQuery } from "@tanstack/react-query";
import { integratorDevicesQuery, integratorErrorsQuery, pendingTagsQuery } from "../../api/queries";
import type { IntegratorDevice, IntegratorError } from "../../api/types";
import { usePlant } from "../../components/plant";
import { Loaded } from "../../components/state";
import { useTitle } from "../../components/use_title";
import { ago, when, words } from "../../format";
import { useNowUs } from "../../live/live";
import { Dismissed, Waiting } from "./pending_tags";

export function IntegratorsPage() {
  useTitle("Integrators");
  const pending = useQuery(pendingTagsQuery);
  const errors = useQuery(integratorErrorsQuery);
  const devices = useQuery(integratorDevicesQuery);
  return (
    <>
      <h1>Integrators</h1>
      <Loaded query={pending} what="The values that wait">
        {(tags) => (
          <>
            <Waiting tags={tags.filter((tag) => tag.dismissed_us === null)} />
            <Dismissed tags={tags.filter((tag) => tag.dismissed_us !== null)} />
          </>
        )}
      </Loaded>
      <section className="panel" aria-labelledby="errors">
        <h2 id="errors">Errors of the last day</h2>
        <Loaded query={errors} what="The errors">
          {(data) => (data.length === 0 ? <p className="quiet">Every message was understood.</p> : <Errors errors={data} />)}
        </Loaded>
      </section>
      <section className="panel" aria-labelledby="devices">
        <h2 id="devices">Devices</h2>
        <Loaded query={devices} what="The devices">
          {(data) => (data.length === 0 ? <p className="quiet">No device has spoken yet.</p> : <Devices devices={data} />)}
        </Loaded>
      </section>
    </>
  );
}

/** The newest first: what still happens is what can be mended. */
export function newestFirst(a: IntegratorError, b: IntegratorError): number {
  return b.last_us - a.last_us || a.client.localeCompare(b.client);
}

function Errors({ errors }: { errors: readonly IntegratorError[] }) {
  const { zone } = usePlant();
  const now_us = useNowUs();
  return (
    <table className="table stacked">
      <caption className="hidden">Errors that clients were told, newest first</caption>
      <thead>
        <tr>
          <th scope="col">Client</th>
          <th scope="col">Error</th>
          <th scope="col">What would be right</th>
          <th scope="col">Newest message</th>
          <th scope="col" className="num">Count</th>
          <th scope="col">Newest</th>
        </tr>
      </thead>
      <tbody>
        {[...errors].sort(newestFirst).map((error) => (
          <tr key={`${error.client} ${error.code}`}>
            <th scope="row" data-label="Client" className="breakable">{error.client}</th>
            <td data-label="Error">
              {error.number} <span className="note">{words(error.code.toLowerCase())}</span>
            </td>
            <td data-label="What would be right" className="breakable">{error.hint}</td>
            <td data-label="Newest message" className="breakable">
              {error.topic}
              {error.sample !== "" && <code className="note">{error.sample}</code>}
            </td>
            <td data-label="Count" className="num">{error.count.toLocaleString("en")}</td>
            <td data-label="Newest">
              {when(error.last_us, now_us, zone)}
              <span className="note">{ago(error.last_us, now_us)}</span>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Who is away comes first, then by client and name. */
export function awayFirst(a: IntegratorDevice, b: IntegratorDevice): number {
  return Number(a.is_online) - Number(b.is_online) || a.client.localeCompare(b.client) || a.name.localeCompare(b.name);
}

function Devices({ devices }: { devices: readonly IntegratorDevice[] }) {
  const { zone } = usePlant();
  const now_us = useNowUs();
  const away = devices.filter((device) => !device.is_online).length;
  return (
    <table className="table stacked">
      <caption>
        {devices.length - away} online, {away} offline, as they or their wills last said
      </caption>
      <thead>
        <tr>
          <th scope="col">Device</th>
          <th scope="col">Client</th>
          <th scope="col">State</th>
          <th scope="col">Since</th>
          <th scope="col">Last heard</th>
        </tr>
      </thead>
      <tbody>
        {[...devices].sort(awayFirst).map((device) => (
          <tr key={device.id}>
            <th scope="row" data-label="Device" className="breakable">{device.name}</th>
            <td data-label="Client" className="breakable">{device.client}</td>
            <td data-label="State">{device.is_online ? "Online" : <strong>Offline</strong>}</td>
            <td data-label="Since">{when(device.since_us, now_us, zone)}</td>
            <td data-label="Last heard">{ago(device.last_seen_us, now_us)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
