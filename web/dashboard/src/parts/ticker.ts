/** Re-rendering at a steady, modest pace: data comes thousands of times a second, eyes don't. */
import { useEffect, useState } from "preact/hooks";

/** Re-renders the component `hz` times a second while the page is visible. */
export function useTicker(hz: number): number {
  const [tick, setTick] = useState(0);
  useEffect(() => {
    let frame = 0;
    const timer = setInterval(() => {
      // A hidden page is not drawn; animation frames also keep a busy page from queueing up renders.
      if (document.visibilityState === "hidden" || frame !== 0) return;
      frame = requestAnimationFrame(() => {
        frame = 0;
        setTick((value) => value + 1);
      });
    }, 1000 / hz);
    return () => {
      clearInterval(timer);
      cancelAnimationFrame(frame);
    };
  }, [hz]);
  return tick;
}
