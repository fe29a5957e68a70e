/** The library in a browser: no Node code. scripts/build-browser.mjs bundles it. */
export type { ModelConfig } from "./checkpoint/config.js";
export type { FolderFiles } from "./container/folder-of-files.js";
export { CorruptFileError, InputError, UsageError } from "./errors.js";
export type { Constraint } from "./grammar/constraint.js";
export type { AnswerFormat } from "./grammar/schema.js";
export type { OnProgress } from "./progress.js";
export type { LoadModelOptions } from "./runtime/assemble.js";
export { type ChatOptions, ChatSession } from "./runtime/chat.js";
export {
  type EndEvent,
  type FinishReason,
  type GenerateEvent,
  type GenerateOptions,
  generate,
  type OnContextFull,
  type Prompt,
  type TokenEvent,
} from "./runtime/generate.js";
export { loadModel } from "./runtime/load-browser.js";
export type { LoadedModel } from "./runtime/loaded-model.js";
export type { LanguageModel, Session } from "./runtime/model.js";
export { PrefixCache } from "./runtime/prefix-cache.js";
export { Sampler, type SamplingOptions } from "./runtime/sampling.js";
export type { ModelSource } from "./runtime/source.js";
export type { ChatMessage } from "./text/chat-template.js";
export { createTokenizer, type Tokenizer } from "./text/tokenizer.js";
export type { CacheFormat } from "./transformer/kv-cache.js";
