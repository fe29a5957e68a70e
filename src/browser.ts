/** The part of the library that needs no Node modules: models are opened by the caller and assembled here. */
export type { ModelConfig } from "./checkpoint/config.js";
export { CorruptFileError, InputError, UsageError } from "./errors.js";
export type { OnProgress } from "./progress.js";
export { assembleModel, type LoadModelOptions, type OpenedModel } from "./runtime/assemble.js";
export { type ChatOptions, ChatSession } from "./runtime/chat.js";
export {
  type EndEvent,
  type FinishReason,
  type GenerateEvent,
  type GenerateOptions,
  generate,
  type TokenEvent,
} from "./runtime/generate.js";
export type { LanguageModel, LoadedModel, Session } from "./runtime/model.js";
export { PrefixCache } from "./runtime/prefix-cache.js";
export { Sampler, type SamplingOptions } from "./runtime/sampling.js";
export type { ChatMessage } from "./text/chat-template.js";
export { createTokenizer, type Tokenizer } from "./text/tokenizer.js";
