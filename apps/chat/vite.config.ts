import { defineConfig } from "vite";

/** Built into dist/chat/, from where `pocketllm serve` reads it. Nothing inline: its security policy forbids it. */
export default defineConfig({
  root: import.meta.dirname,
  base: "./",
  logLevel: "warn",
  build: {
    outDir: "../../dist/chat",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
});
