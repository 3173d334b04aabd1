/** What the live view hears of its filter. */
import { useLayoutEffect, useMemo, useRef } from "preact/hooks";
import * as api from "../../api.ts";
import { topicsOf } from "../../core/announced.ts";
import { isWildcard, matches } from "../../core/filter.ts";
import { parseSpan } from "../../core/format.ts";
import { type Lens, readingsIn } from "../../core/lens.ts";
import { Rate } from "../../core/rhythm.ts";
import { LiveStore } from "../../core/store.ts";
import { fleet, holdDevices } from "../../fleet.ts";
import { type Feed, gatewayNow, openFeed } from "../../session.ts";
import { metaFilter, Units } from "../../units.ts";

/** A longer time isn't replayed message by message: its newest ones are listed, its chart is made of columns. */
const REPLAYED_MS = 15 * 60_000;
/** Messages of a longer time that are listed, and topics of which the last value is. */
const LISTED = 2000;

/** Topics that a lens listens to; a subscriber may have a hundred filters. */
const LENS_TOPICS = 96;

export function heardTopics(lens: Lens): string[] {
  return [...topicsOf([...lens.places.values()])].slice(0, LENS_TOPICS);
}

/** Changed in place: the view looks at it at its own pace. */
export interface Heard {
  readonly store: LiveStore;
  /** From when on `store` has every message, in milliseconds since 1970; null until that is known. */
  wholeSince: number | null;
  readonly units: Units;
  readonly rate: Rate;
  subscribed: boolean;
  recovered: boolean | undefined;
  /** What the gateway said against it. */
  refusal: string | null;
  /** Messages a second of each topic that are asked for; Infinity: all. */
  hz: number;
  /** Asks for so many. */
  pace(hz: number): void;
}

/** When a time that is asked for begins, in milliseconds since 1970; null where it is no time. */
export function beginOf(since: string, now: number): number | null {
  const span = parseSpan(since);
  if (span !== null) return now - span;
  const moment = /^\d{4}-/.test(since) ? Date.parse(since) : Number.NaN;
  return Number.isNaN(moment) ? null : moment;
}

/**
 * Listens to a filter for as long as the view is there.
 *
 * @param from where the window begins that the view opened with, in milliseconds since 1970; null: as `since` says.
 * @param lens listens to its devices instead.
 * @param hz how many messages a second of each topic are asked for at first.
 */
export function useWatch(filter: string, since: string, from: number | null, lens: Lens | null, hz: number): Heard {
  const heard = useMemo<Heard>(
    () => ({
      store: new LiveStore(),
      wholeSince: null,
      units: new Units(fleet),
      rate: new Rate(10),
      subscribed: false,
      recovered: undefined,
      refusal: null,
      hz,
      pace(wanted) {
        if (wanted === this.hz) return;
        this.hz = wanted;
        opened.current?.live.pace(wanted);
      },
    }),
    [],
  );
  const opened = useRef<Feed | null>(null);

  useLayoutEffect(() => {
    const { store } = heard;
    const begins = beginOf(since, gatewayNow());
    const shown = Math.min(begins ?? Number.POSITIVE_INFINITY, from ?? Number.POSITIVE_INFINITY);
    const isLong = begins !== null && (gatewayNow() - begins > REPLAYED_MS || shown < begins);
    const aborter = new AbortController();
    const open = (start: string) => {
      const feed = openFeed({
        topics: lens ? heardTopics(lens) : filter,
        since: start,
        maxHz: heard.hz,
        ...(isWildcard(filter) ? {} : { hiddenHz: Number.POSITIVE_INFINITY }),
        onMessage: (message, replayed) => {
          const isMine = lens !== null || matches(filter, message.topic);
          if (isMine && !replayed) heard.rate.note(message.time, 1 + (message.skipped ?? 0));
          if (lens) {
            if (message.encoding !== undefined) return;
            const readings = readingsIn(lens, message.topic, message.payload);
            if (readings.length === 0) {
              store.hasParts = true;
              store.noteSkipped(message.skipped ?? 0, message.time);
            }
            for (const [topic, value] of readings)
              store.note({ ...message, topic, payload: { [lens.name]: value } }, replayed);
            return;
          }
          heard.units.note(message.topic, message.payload);
          if (isMine) store.note(message, replayed);
        },
        onError: (_code, message) => {
          heard.refusal = message;
        },
        onGap: (gap) => store.noteGap(gap.reason, gap.lost, gatewayNow()),
        onSubscribed: (position, recovered) => {
          store.noteLife(position.split(":")[0] ?? "");
          if (!heard.subscribed && !isLong) heard.wholeSince = recovered === false ? null : begins;
          heard.subscribed = true;
          heard.refusal = null;
          heard.recovered = recovered;
        },
      });
      const meta = lens ? null : metaFilter(filter);
      if (meta !== null) {
        feed.live
          .subscribe(meta, { since: "last" })
          // Units are a courtesy: who may not read meta sees numbers without them.
          .catch(() => undefined);
      }
      opened.current = feed;
    };
    const look = async () => {
      const [last, newest] = await Promise.all([
        api.messages([filter], { limit: LISTED / 2 }, aborter.signal),
        api.messages([filter], { since, order: "desc", limit: LISTED }, aborter.signal),
      ]);
      if (aborter.signal.aborted) return;
      const listed = newest.messages.reverse();
      const oldest = listed[0];
      // topics that were silent of late, so that they are there with their numbers
      const silent = last.messages.filter(
        ({ seq, time }) => seq < (oldest?.seq ?? Number.POSITIVE_INFINITY) && time >= shown,
      );
      store.noteLife(newest.position.split(":")[0] ?? "");
      for (const message of [...silent.sort((a, b) => a.seq - b.seq), ...listed]) {
        heard.units.note(message.topic, message.payload);
        store.note(message, true);
      }
      const isAll = !newest.more && newest.recovered;
      heard.wholeSince = isAll ? begins : oldest ? oldest.time + 1 : gatewayNow();
      open(newest.position);
    };
    // through a lens all that is older comes in columns
    if (isLong && lens) open("15m");
    else if (isLong) {
      look().catch(() => {
        // what is refused here is refused there, too, and said
        if (!aborter.signal.aborted) open("15m");
      });
    } else open(since);
    const letGo = holdDevices();
    return () => {
      letGo();
      aborter.abort();
      opened.current?.close();
    };
  }, []);
  return heard;
}
