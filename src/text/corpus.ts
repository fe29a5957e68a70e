/**
 * Text files as lists of documents, for calibration and evaluation (Node only). Entries of `.json` and
 * `.jsonl` files carry `text`, or `instruction` / `input` / `output` as Alpaca does; plain text is one document.
 */
import { isObject } from "../checkpoint/json.js";
import { InputError } from "../errors.js";
import { readTextFile, type TextFileEntry } from "./text-file.js";

/** Reads the documents of a file. Throws InputError with the file and line when the format is wrong. */
export async function readCorpus(path: string): Promise<string[]> {
  const file = await readTextFile(path);
  if (file.kind === "plain") return [file.text];
  const documents = file.entries.map(documentText);
  if (documents.every((d) => d.trim() === ""))
    throw new InputError(`${path} contains no text: give a file with some`);
  return documents;
}

function documentText({ value, where }: TextFileEntry): string {
  if (isObject(value)) {
    if (typeof value.text === "string") return value.text;
    if (typeof value.instruction === "string" && typeof value.output === "string") {
      const input = typeof value.input === "string" && value.input !== "" ? `\n${value.input}` : "";
      return `${value.instruction}${input}\n\n${value.output}`;
    }
  }
  throw new InputError(`${where}: expected an object with "text", or with "instruction" and "output"`);
}
