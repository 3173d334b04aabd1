/** Icons, drawn on a 16 px grid; they never stand for a word alone unless the control has a name. */
import type { ComponentChildren } from "preact";
import type { Status } from "../core/devices.ts";

function Icon({ children, size = 16 }: { children: ComponentChildren; size?: number }) {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      {children}
    </svg>
  );
}

export const DevicesIcon = () => (
  <Icon>
    <rect x="4" y="4" width="8" height="8" rx="1.5" />
    <path d="M6 1.5v2.5M10 1.5v2.5M6 12v2.5M10 12v2.5M1.5 6H4M1.5 10H4M12 6h2.5M12 10h2.5" />
  </Icon>
);
export const TopicsIcon = () => (
  <Icon>
    <path d="M2.5 2v9.5a1.5 1.5 0 0 0 1.5 1.5h2.5M2.5 6.5h4" />
    <path d="M9 6.5h5M9 13h5" />
  </Icon>
);
export const ViewsIcon = () => (
  <Icon>
    <path d="M2 2.5h5v6H2zM9 2.5h5v3.5H9zM9 8.5h5v5H9zM2 11h5v2.5H2z" />
  </Icon>
);
export const PublishIcon = () => (
  <Icon>
    <path d="M14 2 7.5 8.5M14 2l-4 12-2.5-5.5L2 6z" />
  </Icon>
);
export const ConnectionIcon = () => (
  <Icon>
    <path d="M1.5 9h3l2-5.5 3 9L11.5 9h3" />
  </Icon>
);
export const SearchIcon = () => (
  <Icon>
    <circle cx="7" cy="7" r="4.5" />
    <path d="m10.5 10.5 4 4" />
  </Icon>
);
export const PauseIcon = () => (
  <Icon>
    <path d="M5.5 3v10M10.5 3v10" />
  </Icon>
);
export const PlayIcon = () => (
  <Icon>
    <path d="M5 3v10l8-5z" />
  </Icon>
);
export const Chevron = () => (
  <Icon>
    <path d="m6 4 4 4-4 4" />
  </Icon>
);
export const CopyIcon = () => (
  <Icon>
    <rect x="5.5" y="5.5" width="8" height="8" rx="1.5" />
    <path d="M3.5 10.5h-1v-8h8v1" />
  </Icon>
);
export const DownloadIcon = () => (
  <Icon>
    <path d="M8 2v8.5M4.5 7 8 10.5 11.5 7M2.5 13.5h11" />
  </Icon>
);
export const CloseIcon = () => (
  <Icon>
    <path d="m4 4 8 8M12 4l-8 8" />
  </Icon>
);
export const ThemeIcon = () => (
  <Icon>
    <circle cx="8" cy="8" r="5.5" />
    <path d="M8 2.5v11a5.5 5.5 0 0 0 0-11z" fill="currentColor" />
  </Icon>
);

/** A status has a shape as well as a colour: a filled disc, a half disc, a triangle, a ring, a dotted ring. */
export function StatusIcon({ status }: { status: Status }) {
  return (
    <svg class={`status-icon status-${status}`} width="14" height="14" viewBox="0 0 14 14" aria-hidden="true">
      {status === "online" && <circle cx="7" cy="7" r="4.5" class="fill" />}
      {status === "sleeping" && <path d="M7 2.5a4.5 4.5 0 1 0 4.5 5.5A3.600 3.600 0 0 1 7 2.5z" class="fill" />}
      {status === "stale" && <path d="M7 2 12.5 11.5h-11z" class="fill" />}
      {status === "offline" && <path d="m3.5 3.5 7 7M10.5 3.5l-7 7" class="stroke" />}
      {status === "unknown" && <circle cx="7" cy="7" r="4" class="stroke dotted" />}
    </svg>
  );
}

/** Bars of a signal, the ones that are there filled. */
export function SignalIcon({ bars }: { bars: number }) {
  return (
    <svg class="signal-icon" width="16" height="12" viewBox="0 0 16 12" aria-hidden="true">
      {[0, 1, 2, 3].map((bar) => (
        <rect
          key={bar}
          x={bar * 4}
          y={9 - bar * 3}
          width="3"
          height={3 + bar * 3}
          rx="0.5"
          class={bar < bars ? "on" : "off"}
        />
      ))}
    </svg>
  );
}

export function BatteryIcon({ percent }: { percent: number }) {
  const width = Math.max(0, Math.min(100, percent)) * 0.14;
  return (
    <svg
      class={`battery-icon${percent < 15 ? " low" : ""}`}
      width="20"
      height="10"
      viewBox="0 0 20 10"
      aria-hidden="true"
    >
      <rect x="0.5" y="0.5" width="16" height="9" rx="2" class="shell" />
      <rect x="1.5" y="1.5" width={width.toFixed(1)} height="7" rx="1" class="charge" />
      <path d="M18.5 3.5v3" class="shell" />
    </svg>
  );
}
