/**
 * Training files as documents: text, and which parts of it a model is to learn (Node only). Each entry of a
 * `.json` array or line of a `.jsonl` file says by its fields what it is: `messages` (chat), `instruction` and
 * `output` with an optional `input` (Alpaca), or `text`. Any other file is plain UTF-8 text.
 */
import { isObject } from "../checkpoint/json.js";
import { InputError } from "../errors.js";
import type { ChatMessage } from "../text/chat-template.js";
import { readTextFile } from "../text/text-file.js";
import type { Tokenizer } from "../text/tokenizer.js";

/** From the first to before the last, in UTF-16 code units of a text. */
export type TextRange = readonly [start: number, end: number];

export interface TrainingDocument {
  readonly text: string;
  /** The parts to learn, in order and apart from each other. */
  readonly learned: readonly TextRange[];
  /** The text brings the tokens around it itself, as chat templates write them. */
  readonly framed: boolean;
  /** A prompt with its answer: an instruction or a conversation, which stands for itself. */
  readonly answers: boolean;
  /** For messages: file and line or entry. */
  readonly where: string;
}

export interface ReadDocumentsOptions {
  /** Whether a blank line ends a document of plain text; else such a file is one document. */
  readonly blankLinesSeparate: boolean;
}

/**
 * The documents of a file, in its order; those of white space only have nothing in `learned`. InputError
 * naming file and line or entry when the file cannot be read, is empty, is no UTF-8, no JSON, or an entry has
 * none of the forms.
 */
export async function readDocuments(
  file: string,
  tokenizer: Pick<Tokenizer, "chatTemplate" | "applyChatTemplate">,
  { blankLinesSeparate }: ReadDocumentsOptions,
): Promise<TrainingDocument[]> {
  const content = await readTextFile(file);
  if (content.kind === "entries")
    return content.entries.map(({ value, where }) => entryDocument(value, tokenizer, where));
  const { text } = content;
  return blankLinesSeparate ? paragraphs(text, file) : [wholeText(text, file)];
}

function entryDocument(
  entry: unknown,
  tokenizer: Pick<Tokenizer, "chatTemplate" | "applyChatTemplate">,
  where: string,
): TrainingDocument {
  if (isObject(entry)) {
    // Alpaca's own files carry the finished prompt as `text` too: the fields say more than it does.
    if ("messages" in entry) return conversation(readMessages(entry["messages"], where), tokenizer, where);
    if ("instruction" in entry || "output" in entry) {
      const instruction = stringField(entry, "instruction", where);
      const input = "input" in entry ? stringField(entry, "input", where) : "";
      return instructionDocument(instruction, input, stringField(entry, "output", where), where);
    }
    if ("text" in entry) return wholeText(stringField(entry, "text", where), where);
  }
  throw new InputError(
    `${where}: expected an object with "text", with "messages", or with "instruction" and "output"`,
  );
}

function stringField(entry: Readonly<Record<string, unknown>>, field: string, where: string): string {
  const value = entry[field];
  if (typeof value === "string") return value;
  throw new InputError(
    `${where}: "${field}" is ${field in entry ? "not a string" : "missing"}: correct the entry`,
  );
}

function wholeText(text: string, where: string): TrainingDocument {
  return {
    text,
    learned: text.trim() === "" ? [] : [[0, text.length]],
    framed: false,
    answers: false,
    where,
  };
}

function paragraphs(text: string, file: string): TrainingDocument[] {
  const documents: TrainingDocument[] = [];
  let line = 1;
  // The separators are kept in the list, to count their lines.
  for (const part of text.split(/((?:\r?\n[ \t]*)+\r?\n)/)) {
    if (part.trim() !== "") documents.push(wholeText(part, `${file} line ${line}`));
    line += part.split("\n").length - 1;
  }
  return documents;
}

/**
 * What stands before an answer in Alpaca's form: a sentence on what is asked and the sections
 * "### Instruction:", "### Input:" (where there is one) and "### Response:". A tuned model answers to this.
 */
export function instructionPrompt(instruction: string, input = ""): string {
  const given = input.trim() === "" ? "" : `### Input:\n${input}\n\n`;
  const task = given === "" ? "a task" : "a task and what it is about";
  return `Here is ${task}. Write an answer that fulfils the task.\n\n### Instruction:\n${instruction}\n\n${given}### Response:\n`;
}

function instructionDocument(
  instruction: string,
  input: string,
  output: string,
  where: string,
): TrainingDocument {
  const prompt = instructionPrompt(instruction, input);
  const text = prompt + output;
  const learned: TextRange[] = output.trim() === "" ? [] : [[prompt.length, text.length]];
  return { text, learned, framed: false, answers: true, where };
}

function readMessages(value: unknown, where: string): ChatMessage[] {
  if (!Array.isArray(value) || value.length === 0)
    throw new InputError(`${where}: "messages" is not a list of messages: correct the entry`);
  return value.map((message: unknown, i) => {
    const at = `${where} message ${i + 1}`;
    if (!isObject(message)) throw new InputError(`${at}: expected an object with "role" and "content"`);
    return { role: stringField(message, "role", at), content: stringField(message, "content", at) };
  });
}

/** The conversation as the model's template writes it; learned are the assistant's turns with their end. */
function conversation(
  messages: readonly ChatMessage[],
  tokenizer: Pick<Tokenizer, "chatTemplate" | "applyChatTemplate">,
  where: string,
): TrainingDocument {
  if (!messages.some(({ role }) => role === "assistant"))
    throw new InputError(`${where}: no message is the assistant's, so there is nothing to learn: remove it`);
  if (tokenizer.chatTemplate === null)
    throw new InputError(`${where}: the model has no chat template: give it "text" or Alpaca entries`);
  let text: string;
  try {
    text = tokenizer.applyChatTemplate(messages, { addGenerationPrompt: false });
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw new InputError(`${where}: ${error.message}`);
  }
  const learned = assistantTurns(messages, text, tokenizer) ?? [[0, text.length]];
  return { text, learned, framed: true, answers: true, where };
}

/**
 * Where the assistant's turns are in `text`, found by writing out shorter conversations; null where a template
 * does not write those as the beginnings of the longer one.
 */
function assistantTurns(
  messages: readonly ChatMessage[],
  text: string,
  tokenizer: Pick<Tokenizer, "applyChatTemplate">,
): TextRange[] | null {
  const turns: TextRange[] = [];
  for (const [i, { role }] of messages.entries()) {
    if (role !== "assistant") continue;
    let before: string;
    let after: string;
    try {
      before = tokenizer.applyChatTemplate(messages.slice(0, i), { addGenerationPrompt: true });
      after = tokenizer.applyChatTemplate(messages.slice(0, i + 1), { addGenerationPrompt: false });
    } catch (error) {
      if (error instanceof InputError) return null;
      throw error;
    }
    if (!text.startsWith(after) || !after.startsWith(before)) return null;
    if (after.length > before.length) turns.push([before.length, after.length]);
  }
  return turns.length > 0 ? turns : null;
}
