// Writes examples/calibration-stories.txt: stories that models/pocket-stories tells at temperature 1, so that
// the demo can calibrate without anybody's text. The seeds are fixed: the file can be made again.
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { generate } from "../dist/runtime/generate.js";
import { loadModel } from "../dist/runtime/load.js";

const OPENINGS = [
  "Once upon a time",
  "One day",
  "There was a",
  "Lily",
  "Tom and",
  "A little",
  "In a big",
  "Max",
  "The sun",
  "Sara",
];
const STORIES = 80;
const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const model = await loadModel(join(root, "models/pocket-stories"), { threads: 1 });
const stories = [];
for (let seed = 0; seed < STORIES; seed++) {
  const prompt = OPENINGS[seed % OPENINGS.length];
  let text = prompt;
  for await (const piece of generate(model, prompt, { maxTokens: 256, temperature: 1, seed }))
    text += piece.text;
  stories.push(text.trim());
}
await model.close();
writeFileSync(join(root, "examples/calibration-stories.txt"), `${stories.join("\n\n")}\n`);
