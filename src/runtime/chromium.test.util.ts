/** Chromium for tests: Debian's `chromium` package or another one that is installed, driven by playwright-core. */
import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

const executablePath = [
  process.env["POCKETLLM_CHROMIUM"],
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
].find((path) => path !== undefined && existsSync(path));

/** For a test's `skip`: false, or why it cannot run. */
export const noChromium = executablePath ? false : "Chromium is missing (apt-get install chromium)";

export function launchChromium(): Promise<Browser> {
  // As root, which continuous integration is, Chromium's sandbox cannot be set up.
  return chromium.launch({ executablePath: executablePath!, args: ["--no-sandbox"] });
}
