// The CCPs as they stand at this tick, worst first.
import { usePlant } from "../../components/plant";
import type { Ccp } from "../../api/types";
import { useNowUs } from "../../live/live";
import { isAlarmStateKnown } from "../../live/staleness";
import { store } from "../../live/store";
import { viewCcp, worstFirst, type CcpView } from "./ccp_state";

export function useCcpViews(ccps: readonly Ccp[]): CcpView[] {
  const { tags } = usePlant();
  const now_us = useNowUs();
  const is_current = isAlarmStateKnown(store.delivery(), now_us);
  return ccps
    .map((ccp) => {
      const { tag_id } = ccp;
      if (tag_id === null) return viewCcp(ccp, undefined, null, null, now_us, is_current);
      return viewCcp(ccp, tags.get(tag_id), store.latest(tag_id), store.latestGood(tag_id), now_us, is_current);
    })
    .sort(worstFirst);
}
