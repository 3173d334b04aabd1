/** What fingers and wheels do to a window of time: one finger moves it, two stretch it. */
import { dragged, type TimeWindow } from "../../core/window.ts";

interface Grasp {
  /** The window that is drawn. */
  window(): TimeWindow;
  /** Another one, while the gesture lasts. */
  move(window: TimeWindow): void;
  /** The gesture has ended. */
  settle(): void;
}

/** A finger that moves less, in pixels, is a tap. */
const TAP = 8;
/** What a notch of a wheel does. */
const ZOOM_PER_PIXEL = 0.004;
/** A wheel has stopped when nothing came for so long, in milliseconds. */
const WHEEL_END_MS = 250;

/** Listens on the area in which a chart is drawn; what it returns ends that. */
export function listenToGestures(area: HTMLElement, grasp: Grasp): () => void {
  /** Of each finger the moment that it holds, and where it is, in pixels. */
  const fingers = new Map<number, { time: number; from: number; at: number }>();
  let isMoving = false;
  let wheeling = 0;
  const place = (clientX: number) => clientX - area.getBoundingClientRect().left;
  const timeAt = (x: number) => {
    const { from, to } = grasp.window();
    return from + (x / area.clientWidth) * (to - from);
  };
  const hold = () => {
    for (const finger of fingers.values()) {
      finger.time = timeAt(finger.at);
      finger.from = finger.at;
    }
  };
  const apply = () => {
    const [first, second] = [...fingers.values()].map(({ time, at }) => ({ time, at: at / area.clientWidth }));
    if (first) grasp.move(dragged(grasp.window(), first, second));
  };

  const onDown = (event: PointerEvent) => {
    const byMouse = event.pointerType === "mouse";
    if (byMouse && !(event.shiftKey && event.button === 0)) return;
    if (fingers.size >= 2) return;
    const at = place(event.clientX);
    fingers.set(event.pointerId, { time: 0, from: at, at });
    hold();
    isMoving = byMouse || fingers.size === 2;
    area.setPointerCapture(event.pointerId);
  };
  const onMove = (event: PointerEvent) => {
    const finger = fingers.get(event.pointerId);
    if (!finger) return;
    finger.at = place(event.clientX);
    isMoving ||= Math.abs(finger.at - finger.from) > TAP;
    if (isMoving) apply();
  };
  const onEnd = (event: PointerEvent) => {
    if (!fingers.delete(event.pointerId)) return;
    hold();
    if (fingers.size === 0 && isMoving) {
      isMoving = false;
      grasp.settle();
    }
  };
  const onWheel = (event: WheelEvent) => {
    // a trackpad's pinch comes as a wheel with Ctrl; a plain wheel scrolls the page
    const isSideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (!event.ctrlKey && !event.shiftKey && !isSideways) return;
    event.preventDefault();
    const window = grasp.window();
    const at = place(event.clientX) / area.clientWidth;
    if (event.ctrlKey) {
      const width = (window.to - window.from) * Math.exp(event.deltaY * ZOOM_PER_PIXEL);
      const time = window.from + at * (window.to - window.from);
      grasp.move({ from: time - at * width, to: time + (1 - at) * width });
    } else {
      const shift = ((isSideways ? event.deltaX : event.deltaY) / area.clientWidth) * (window.to - window.from);
      grasp.move({ from: window.from + shift, to: window.to + shift });
    }
    clearTimeout(wheeling);
    wheeling = globalThis.setTimeout(grasp.settle, WHEEL_END_MS) as unknown as number;
  };

  area.addEventListener("pointerdown", onDown);
  area.addEventListener("pointermove", onMove);
  area.addEventListener("pointerup", onEnd);
  area.addEventListener("pointercancel", onEnd);
  area.addEventListener("wheel", onWheel, { passive: false });
  return () => {
    clearTimeout(wheeling);
    area.removeEventListener("pointerdown", onDown);
    area.removeEventListener("pointermove", onMove);
    area.removeEventListener("pointerup", onEnd);
    area.removeEventListener("pointercancel", onEnd);
    area.removeEventListener("wheel", onWheel);
  };
}
