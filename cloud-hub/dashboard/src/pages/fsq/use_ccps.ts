// The CCPs as they stand at this tick, worst first.
import { usePlant } from "../../components/plant";
import type { Ccp } from "../../api/types";
import { useNowUs } from "../../live/live";
import { store } from "../../live/store";
import { viewCcp, worstFirst, type CcpView } from "./ccp_state";

export function useCcpViews(ccps: readonly Ccp[]): CcpView[] {
  const { tags } = usePlant();
  const now_us = useNowUs();
  return ccps
    .map((ccp) =>
      viewCcp(ccp, tags.get(ccp.tag_id), store.latest(ccp.tag_id), store.latestGood(ccp.tag_id), now_us),
    )
    .sort(worstFirst);
}
