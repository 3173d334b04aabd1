/** Which language the page speaks: that of its address, the one chosen here, or the browser's first that it knows. */
import { de } from "./core/de.ts";
import { speak, type Table } from "./core/words.ts";

/** Their names, by code (BCP 47), in their own words. */
export const LANGUAGE_NAMES = { en: "English", de: "Deutsch" } as const;

export type Language = keyof typeof LANGUAGE_NAMES;

export const LANGUAGES: readonly Language[] = ["en", "de"];

const TABLES: Readonly<Record<Language, Table>> = { en: {}, de };
const KEY = "gateway.language";

const isKnown = (code: string | null): code is Language => code !== null && code in LANGUAGE_NAMES;

/** What was chosen; null: as the browser has it. */
export function chosenLanguage(): Language | null {
  try {
    const chosen = localStorage.getItem(KEY);
    return isKnown(chosen) ? chosen : null;
  } catch {
    return null;
  }
}

/** Chooses a language for this browser; null: as the browser has it. The page is made anew. */
export function chooseLanguage(language: Language | null): void {
  try {
    if (language === null) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, language);
  } catch {
    // a browser that keeps nothing speaks as it does
  }
  location.reload();
}

const asked = new URLSearchParams(location.search).get("lang");

/** The language that is spoken. */
export const language: Language =
  (isKnown(asked) ? asked : chosenLanguage()) ??
  navigator.languages.map((code) => code.slice(0, 2)).find(isKnown) ??
  "en";

speak(TABLES[language]);
document.documentElement.lang = language;
