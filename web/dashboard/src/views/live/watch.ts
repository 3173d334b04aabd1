/** What the live view hears of its filter. */
import { useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { isWildcard, matches } from "../../core/filter.ts";
import { Rate } from "../../core/rhythm.ts";
import { LiveStore } from "../../core/store.ts";
import { gatewayNow, openFeed } from "../../session.ts";
import { metaFilter, Units } from "../../units.ts";

/** How long what is older may come in before it takes the place of what is shown, in milliseconds. */
const REPLAY_MS = 300;

/** Changed in place: the view looks at it at its own pace. */
export interface Heard {
  store: LiveStore;
  /** How far back `store` reaches, in milliseconds since 1970; null: as far as was asked for in words. */
  reach: number | null;
  readonly units: Units;
  readonly rate: Rate;
  subscribed: boolean;
  recovered: boolean | undefined;
  /** What the gateway said against it. */
  refusal: string | null;
}

/**
 * Listens to a filter for as long as the view is there.
 *
 * @param reach from when on messages are wanted, in milliseconds since 1970; null: as `since` says.
 * @param onReplaced a store that reaches elsewhere takes the place of the one before, which was shown until then.
 */
export function useWatch(
  filter: string,
  since: string,
  reach: number | null,
  onReplaced: (store: LiveStore) => void,
): Heard {
  const heard = useMemo<Heard>(
    () => ({
      store: new LiveStore(),
      reach: null,
      units: new Units(),
      rate: new Rate(10),
      subscribed: false,
      recovered: undefined,
      refusal: null,
    }),
    [],
  );
  const replaced = useRef(onReplaced);
  replaced.current = onReplaced;

  useLayoutEffect(() => {
    const store = new LiveStore();
    let swapping = 0;
    const swap = () => {
      if (heard.store === store && heard.reach === reach) return;
      heard.store = store;
      heard.reach = reach;
      replaced.current(store);
    };
    if (heard.store.received === 0) heard.store = store;
    const feed = openFeed({
      topics: filter,
      since: reach === null ? since : new Date(reach).toISOString(),
      ...(isWildcard(filter) ? {} : { hiddenHz: Number.POSITIVE_INFINITY }),
      onMessage: (message, replayed) => {
        heard.units.note(message.topic, message.payload);
        if (!matches(filter, message.topic)) return;
        store.note(message, replayed);
        if (!replayed) heard.rate.note(message.time, 1 + (message.skipped ?? 0));
      },
      onError: (_code, message) => {
        heard.refusal = message;
      },
      onGap: (gap) => store.noteGap(gap.reason, gap.lost, gatewayNow()),
      onSubscribed: (_position, recovered) => {
        clearTimeout(swapping);
        swapping = window.setTimeout(swap, REPLAY_MS);
        heard.subscribed = true;
        heard.refusal = null;
        heard.recovered = recovered;
      },
    });
    const meta = metaFilter(filter);
    if (meta !== null) {
      feed.live
        .subscribe(meta, { since: "last" })
        // Units are a courtesy: who may not read meta sees numbers without them.
        .catch(() => undefined);
    }
    return () => {
      clearTimeout(swapping);
      feed.close();
    };
  }, [reach]);
  return heard;
}
