// Product that is held and why: each open hold with its lots and the deviation that caused it.
import { useQuery } from "@tanstack/react-query";
import { Link, useLocation } from "@tanstack/react-router";
import { useEffect, useRef } from "react";
import { deviationQuery, openHoldsQuery } from "../../api/queries";
import type { HeldLot, Hold } from "../../api/types";
import { PriorityTag } from "../../components/marks";
import { QualityTabs } from "../../components/navigation";
import { lineOf, usePlant } from "../../components/plant";
import { Loaded } from "../../components/state";
import { useTitle } from "../../components/use_title";
import { ago, formatQuantity, plainUnits, when, windowWords, words } from "../../format";
import { useNowUs } from "../../live/live";
import { isAlarmStateKnown } from "../../live/staleness";
import { store } from "../../live/store";
import { deviationMeasure, deviationWords } from "../plant_ops/act_now";

/** Sum of the held quantities, unit by unit: "1,240 cases, 300 kg". */
export function quantityOnHold(lots: readonly HeldLot[]): string {
  const by_unit = new Map<string, number>();
  for (const lot of lots) by_unit.set(lot.unit, (by_unit.get(lot.unit) ?? 0) + lot.quantity);
  return [...by_unit].map(([unit, quantity]) => formatQuantity(quantity, unit)).join(", ");
}

export function HoldsPage() {
  useTitle("Holds");
  const holds = useQuery(openHoldsQuery);
  const now_us = useNowUs();
  const is_known = isAlarmStateKnown(store.delivery(), now_us);
  return (
    <>
      <QualityTabs />
      <h1>Product on hold</h1>
      <Loaded query={holds} what="The holds">
        {(data) =>
          data.length === 0 ? (
            <p className="panel quiet">{is_known ? "Nothing is on hold." : "Hold state unknown."}</p>
          ) : (
            [...data]
              .sort((a, b) => a.placed_us - b.placed_us)
              .map((hold) => <HoldPanel key={hold.id} hold={hold} now_us={now_us} />)
          )
        }
      </Loaded>
    </>
  );
}

function HoldPanel({ hold, now_us }: { hold: Hold; now_us: number | null }) {
  const { zone } = usePlant();
  const panel = useRef<HTMLElement>(null);
  const is_asked_for = useLocation().hash === hold.code;
  // The address names a hold, but its panel appears only after the holds were loaded.
  useEffect(() => {
    if (is_asked_for) panel.current?.scrollIntoView();
  }, [is_asked_for]);
  return (
    <section ref={panel} className="panel abnormal p2" id={hold.code} aria-labelledby={`title-${hold.id}`}>
      <div className="panel-head">
        <h2 id={`title-${hold.id}`}>{hold.code}</h2>
        <PriorityTag priority={2} />
        {hold.widened && <span className="tag">Widened</span>}
        <span className="quiet">
          placed {when(hold.placed_us, now_us, zone)}, {ago(hold.placed_us, now_us)}
        </span>
      </div>
      <p>{plainUnits(hold.reason)}</p>
      {hold.deviation_id !== null && <Cause deviation_id={hold.deviation_id} now_us={now_us} />}
      {hold.lots.length === 0 ? (
        <p>No lot was found on the equipment in the window.</p>
      ) : (
        <table className="table stacked">
          <caption>
            {hold.lots.length === 1 ? "1 lot" : `${hold.lots.length} lots`}, {quantityOnHold(hold.lots)}
          </caption>
          <thead>
            <tr>
              <th scope="col">Lot</th>
              <th scope="col">SKU</th>
              <th scope="col" className="num">Quantity</th>
              <th scope="col">Status</th>
            </tr>
          </thead>
          <tbody>
            {hold.lots.map((lot) => (
              <tr key={lot.lot_id}>
                <th scope="row" data-label="Lot">{lot.lot_code}</th>
                <td data-label="SKU">{lot.sku}</td>
                <td data-label="Quantity" className="num">{formatQuantity(lot.quantity, lot.unit)}</td>
                <td data-label="Status">{words(lot.status)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

function Cause({ deviation_id, now_us }: { deviation_id: string; now_us: number | null }) {
  const plant = usePlant();
  const deviation = useQuery(deviationQuery(deviation_id));
  return (
    <Loaded query={deviation} what="The deviation">
      {(data) => {
        const line = lineOf(plant, data.line_id);
        return (
          <dl className="facts">
            <dt>Deviation</dt>
            <dd>
              {deviationWords(data)}: {deviationMeasure(data)}
              {line !== undefined && (
                <>
                  {", "}
                  <Link to="/t/$tenant/p/$plant/lines/$line" params={{ ...plant.params, line: line.id }}>
                    line {line.code}
                  </Link>
                </>
              )}
            </dd>
            <dt>Window</dt>
            <dd>
              {windowWords(data.window_from_us, data.window_to_us, now_us, plant.zone)}
              {data.late && ", found in data that arrived late"}
            </dd>
            <dt>Acknowledged</dt>
            <dd>
              {data.acknowledged_us === null
                ? "not yet"
                : `${data.acknowledged_by ?? "somebody"}, ${when(data.acknowledged_us, now_us, plant.zone)}`}
            </dd>
            {data.detail !== "" && (
              <>
                <dt>Detail</dt>
                <dd>{plainUnits(data.detail)}</dd>
              </>
            )}
          </dl>
        );
      }}
    </Loaded>
  );
}
