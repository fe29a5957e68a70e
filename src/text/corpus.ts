/**
 * Text files as lists of documents, for calibration, evaluation and tuning. Node only. Formats by content:
 * `.jsonl` with one object a line, `.json` with an array of objects, anything else is plain UTF-8 text (one
 * document). Objects carry `text`, or `instruction` / `input` / `output` as Alpaca does.
 */
import { readFile } from "node:fs/promises";
import { extname } from "node:path";
import { InputError } from "../errors.js";

/** Reads the documents of a file. Throws InputError with the file and line when the format is wrong. */
export async function readCorpus(path: string): Promise<string[]> {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await readFile(path));
  } catch (error) {
    if (error instanceof TypeError) throw new InputError(`${path} is not UTF-8 text`);
    throw new InputError(`cannot read ${path}: ${(error as Error).message}`);
  }
  const documents = parseCorpus(text, extname(path).toLowerCase(), path);
  if (documents.every((d) => d.trim() === "")) throw new InputError(`${path} contains no text`);
  return documents;
}

function parseCorpus(text: string, extension: string, path: string): string[] {
  if (extension === ".jsonl") {
    return text
      .split("\n")
      .map((line, i) => [line, `${path} line ${i + 1}`] as const)
      .filter(([line]) => line.trim() !== "")
      .map(([line, where]) => documentText(parseJson(line, where), where));
  }
  if (extension === ".json") {
    const value = parseJson(text, path);
    if (!Array.isArray(value))
      throw new InputError(`${path}: expected a JSON array of objects with a text field`);
    return value.map((v, i) => documentText(v, `${path} item ${i + 1}`));
  }
  return [text];
}

function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new InputError(`${where} is not valid JSON`);
  }
}

function documentText(value: unknown, where: string): string {
  if (typeof value === "object" && value !== null) {
    const fields = value as Record<string, unknown>;
    if (typeof fields.text === "string") return fields.text;
    if (typeof fields.instruction === "string" && typeof fields.output === "string") {
      const input = typeof fields.input === "string" && fields.input !== "" ? `\n${fields.input}` : "";
      return `${fields.instruction}${input}\n\n${fields.output}`;
    }
  }
  throw new InputError(`${where}: expected an object with "text", or with "instruction" and "output"`);
}
