/** Who the gateway takes this visitor for, asked once for each token. */
import { effect, signal } from "@preact/signals";
import { type Identity, whoAmI } from "./api.ts";
import { covers } from "./core/filter.ts";
import { link, token } from "./session.ts";

/** undefined while asking, null when the gateway doesn't say. */
export const identity = signal<Identity | null | undefined>(undefined);

let asked: string | null | undefined;

export function watchIdentity(): void {
  effect(() => {
    const held = token.value;
    const state = link.value.state;
    // Asked again when the connection is back: grants may have changed with the gateway's configuration.
    if (state === "waiting" || state === "closed") asked = undefined;
    if (asked === held || state !== "open") return;
    asked = held;
    whoAmI().then(
      (answer) => {
        identity.value = answer;
      },
      () => {
        identity.value = null;
      },
    );
  });
}

/** Whether this visitor may publish to a topic (any topic when none is named); null when only a try can tell. */
export function mayPublish(topic?: string): boolean | null {
  const grants = identity.value?.publish;
  if (!grants) return null;
  if (topic === undefined || topic === "") return grants.length > 0;
  return grants.some((grant) => covers(grant, topic));
}
