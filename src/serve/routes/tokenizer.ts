/** The tokenizer, at the paths and in the shapes that lm-evaluation-harness asks of a remote one. */
import type { App, ServeContext } from "../context.js";
import { ApiError } from "../errors.js";
import { errorResponses } from "../schemas/common.js";
import {
  DetokenizeRequest,
  DetokenizeResponse,
  TokenizeRequest,
  TokenizeResponse,
  TokenizerInfo,
} from "../schemas/tokenizer.js";

export function addTokenizer(app: App, { model }: ServeContext): void {
  const { tokenizer, contextLength } = model;
  app.get(
    "/tokenizer_info",
    { schema: { operationId: "tokenizerInfo", response: { 200: TokenizerInfo, ...errorResponses(401) } } },
    async () => {
      const spelling = (id: number | null) => (id === null ? null : tokenizer.token(id));
      return {
        bos_token: spelling(tokenizer.bosTokenId),
        eos_token: spelling(tokenizer.eosTokenId),
        pad_token: null,
        chat_template: tokenizer.chatTemplate,
      };
    },
  );
  app.post(
    "/tokenize",
    {
      schema: {
        operationId: "tokenize",
        body: TokenizeRequest,
        response: { 200: TokenizeResponse, ...errorResponses(400, 401, 413, 415) },
      },
    },
    async ({ body: { prompt, add_special_tokens: addSpecialTokens = true } }) => {
      const tokens = tokenizer.encode(prompt, { addSpecialTokens });
      return { tokens, count: tokens.length, max_model_len: contextLength };
    },
  );
  app.post(
    "/detokenize",
    {
      schema: {
        operationId: "detokenize",
        body: DetokenizeRequest,
        response: { 200: DetokenizeResponse, ...errorResponses(400, 401, 413, 415) },
      },
    },
    async ({ body: { tokens } }) => {
      const outside = tokens.find((id) => id >= tokenizer.vocabularySize);
      if (outside !== undefined)
        throw new ApiError(400, `Token id ${outside} is not in the vocabulary.`, { param: "tokens" });
      return { prompt: tokenizer.decode(tokens, { skipSpecialTokens: false }) };
    },
  );
}
