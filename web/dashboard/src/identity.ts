/** Who the gateway takes this visitor for, asked once for each token, and what follows from it. */

import { effect, signal } from "@preact/signals";
import { type Identity, whoAmI } from "./api.ts";
import { covers, intersection, minimal } from "./core/filter.ts";
import { t } from "./core/words.ts";
import { type Denial, link, lockedOut, token } from "./session.ts";

/** undefined while asking, null when the gateway doesn't say. */
export const identity = signal<Identity | null | undefined>(undefined);

let asked: string | null | undefined;
let isOld = false;

export function watchIdentity(): void {
  effect(() => {
    const held = token.value;
    const state = link.value.state;
    // Asked again when a lost connection is back: grants may have changed with the gateway's configuration.
    if (state === "waiting" || state === "closed") isOld = true;
    const isBack = isOld && state === "open";
    if (asked === held && !isBack) return;
    if (asked !== held) identity.value = undefined;
    asked = held;
    isOld = false;
    whoAmI().then(
      (answer) => {
        if (asked !== held) return;
        identity.value = answer;
        lockedOut.value = answer && lockOf(answer);
      },
      (error: { status?: number; reason?: string | null; message: string }) => {
        if (asked !== held) return;
        // A token that the gateway can't accept is told here first; anything else is found out by trying.
        if (error.status === 401) {
          lockedOut.value = { code: "unauthorized", reason: error.reason ?? null, message: error.message };
        }
        identity.value = null;
      },
    );
  });
}

/** Why somebody may read nothing; null for those who may. */
function lockOf(who: Identity): Denial | null {
  if (!who.tokens || who.subscribe?.length !== 0) return null;
  if (who.anonymous)
    return { code: "unauthorized", reason: null, message: t("Visitors without a token may read nothing here.") };
  return { code: "forbidden", reason: null, message: t("It allows to read nothing.") };
}

/** Whether this visitor may publish to a topic (any topic when none is named); null when only a try can tell. */
export function mayPublish(topic?: string): boolean | null {
  const grants = identity.value?.publish;
  if (!grants) return null;
  if (topic === undefined || topic === "") return grants.length > 0;
  return grants.some((grant) => covers(grant, topic));
}

/** Filters for everything that this visitor may read, `$…` left out. */
export function readable(): string[] {
  const grants = identity.value?.subscribe;
  return grants ? minimal(grants.filter((grant) => !grant.startsWith("$"))) : ["#"];
}

/** What of these filters this visitor may read. */
export function readableOf(filters: readonly string[]): string[] {
  const grants = identity.value?.subscribe;
  if (!grants) return [...filters];
  const shared = filters.flatMap((filter) => grants.flatMap((grant) => intersection(grant, filter) ?? []));
  return minimal(shared);
}

export function maySubscribe(filter: string): boolean {
  return identity.value?.subscribe?.some((grant) => covers(grant, filter)) ?? true;
}
