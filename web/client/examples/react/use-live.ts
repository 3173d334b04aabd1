import { connect, type Live, type Message, type Options, type State } from "gateway-live";
import { useEffect, useState, useSyncExternalStore } from "react";

/** A connection that lives as long as the component. `options` are those of its first time. */
export function useLive(url: string, options: Options = {}): Live | undefined {
  const [first] = useState(options);
  const [live, setLive] = useState<Live>();
  useEffect(() => {
    const opened = connect(url, first);
    setLive(opened);
    return () => opened.close();
  }, [url, first]);
  return live;
}

/** Whether it is connected, and if not, what it does about that. */
export function useLiveState(live: Live | undefined): State {
  return useSyncExternalStore(
    (changed) => live?.on("state", changed) ?? (() => {}),
    () => live?.state ?? "connecting",
  );
}

/** The newest message of every topic that the filter matches, by topic; renders once a frame, however many come. */
export function useTopics<Payload>(live: Live | undefined, filter: string): ReadonlyMap<string, Message<Payload>> {
  const [newest, setNewest] = useState<ReadonlyMap<string, Message<Payload>>>(new Map());
  useEffect(() => {
    if (!live) return;
    const all = new Map<string, Message<Payload>>();
    let frame = 0;
    const onMessage = (message: Message<Payload>) => {
      all.set(message.topic, message);
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        setNewest(new Map(all));
      });
    };
    const taken = live.subscribe<Payload>(filter, { onMessage });
    taken.catch((error) => {
      if (error.code !== "closed") throw error;
    });
    return () => {
      cancelAnimationFrame(frame);
      taken.then((subscription) => subscription.unsubscribe()).catch(() => {});
    };
  }, [live, filter]);
  return newest;
}
