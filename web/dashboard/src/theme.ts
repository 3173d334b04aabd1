/** Light, dark, or as the system has it. */
import { signal } from "@preact/signals";

export type Theme = "auto" | "light" | "dark";

const KEY = "gateway.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

function chosenNow(): Theme {
  const held = document.documentElement.dataset.theme;
  return held === "light" || held === "dark" ? held : "auto";
}

export const chosen = signal<Theme>(chosenNow());
/** What is on the screen; charts are drawn again when it changes. */
export const theme = signal<"light" | "dark">("light");

function settle(): void {
  theme.value = chosen.value === "auto" ? (dark.matches ? "dark" : "light") : chosen.value;
}

settle();
dark.addEventListener("change", settle);

export function chooseTheme(next: Theme): void {
  chosen.value = next;
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    if (next === "auto") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, next);
  } catch {
    // Without storage the choice lasts as long as the page.
  }
  settle();
}
