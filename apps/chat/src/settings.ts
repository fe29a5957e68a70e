/** What the reader can set, kept in the browser; the API key only as long as the tab is open. */

export interface Settings {
  readonly temperature: number;
  readonly topP: number;
  readonly maxTokens: number;
  readonly system: string;
  readonly apiKey: string;
}

const DEFAULTS: Settings = { temperature: 0.7, topP: 0.95, maxTokens: 256, system: "", apiKey: "" };
const NAME = "pocketllm.settings";
const KEY = "pocketllm.key";

/** The defaults where nothing was kept, or nothing may be. */
export function loadSettings(): Settings {
  try {
    const kept = JSON.parse(localStorage.getItem(NAME) ?? "{}") as Partial<Settings>;
    const number = (value: unknown, instead: number) =>
      typeof value === "number" && Number.isFinite(value) ? value : instead;
    return {
      temperature: number(kept.temperature, DEFAULTS.temperature),
      topP: number(kept.topP, DEFAULTS.topP),
      maxTokens: number(kept.maxTokens, DEFAULTS.maxTokens),
      system: typeof kept.system === "string" ? kept.system : "",
      apiKey: sessionStorage.getItem(KEY) ?? "",
    };
  } catch {
    return DEFAULTS;
  }
}

export function saveSettings({ apiKey, ...kept }: Settings): void {
  try {
    localStorage.setItem(NAME, JSON.stringify(kept));
    sessionStorage.setItem(KEY, apiKey);
  } catch {
    // A browser that keeps nothing: the settings last as long as the page.
  }
}
