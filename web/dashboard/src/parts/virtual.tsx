/** Long lists of rows of one height, of which only the visible ones exist. */
import type { ComponentChildren, RefObject } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

const OVERSCAN = 6;

/**
 * Which rows are visible, whatever scrolls: the list's own box (`scroller`) or the page.
 *
 * @returns the first row and one after the last one to draw.
 */
export function useVisibleRows(
  list: RefObject<HTMLElement | null>,
  count: number,
  rowHeight: number,
  scroller?: RefObject<HTMLElement | null>,
): [first: number, end: number] {
  const [range, setRange] = useState<[number, number]>([0, Math.min(count, 40)]);
  const current = useRef(range);
  useLayoutEffect(() => {
    const measure = () => {
      const box = list.current?.getBoundingClientRect();
      if (!box) return;
      const view = scroller?.current?.getBoundingClientRect();
      const top = view?.top ?? 0;
      const bottom = view?.bottom ?? innerHeight;
      const first = Math.max(0, Math.floor((top - box.top) / rowHeight) - OVERSCAN);
      const end = Math.min(count, Math.ceil((bottom - box.top) / rowHeight) + OVERSCAN);
      if (first === current.current[0] && end === current.current[1]) return;
      current.current = [first, Math.max(first, end)];
      setRange(current.current);
    };
    measure();
    const target: HTMLElement | Window = scroller?.current ?? window;
    target.addEventListener("scroll", measure, { passive: true });
    addEventListener("resize", measure);
    const observer = new ResizeObserver(measure);
    observer.observe(scroller?.current ?? document.body);
    return () => {
      target.removeEventListener("scroll", measure);
      removeEventListener("resize", measure);
      observer.disconnect();
    };
  }, [count, rowHeight, list, scroller]);
  return [Math.min(range[0], count), Math.min(range[1], count)];
}

interface RowsProps {
  list: RefObject<HTMLDivElement | null>;
  count: number;
  rowHeight: number;
  range: [number, number];
  role?: "rowgroup" | "presentation" | "list" | undefined;
  children: (index: number) => ComponentChildren;
}

/** A box as tall as all rows with the visible ones in their places. Each row gets its own positioned wrapper. */
export function Rows({ list, count, rowHeight, range, role, children }: RowsProps) {
  const rows: ComponentChildren[] = [];
  for (let index = range[0]; index < range[1]; index++) rows.push(children(index));
  return (
    <div
      ref={list}
      class="rows"
      role={role}
      style={{ height: `${count * rowHeight}px`, "--row-height": `${rowHeight}px` }}
    >
      {rows}
    </div>
  );
}

/** Where a row stands in its `Rows`. */
export const rowStyle = (index: number, rowHeight: number) => ({ transform: `translateY(${index * rowHeight}px)` });

/** Whether the page is at least so wide; re-renders when that changes. */
export function useWide(pixels: number): boolean {
  const query = useRef(matchMedia(`(min-width: ${pixels}px)`));
  const [wide, setWide] = useState(query.current.matches);
  useLayoutEffect(() => {
    const media = query.current;
    const change = () => setWide(media.matches);
    media.addEventListener("change", change);
    return () => media.removeEventListener("change", change);
  }, []);
  return wide;
}
