/** The tokenizer's endpoints, in the form in which lm-evaluation-harness asks for a remote tokenizer. */
import Type from "typebox";

export const TokenizeRequest = Type.Object(
  {
    prompt: Type.String(),
    add_special_tokens: Type.Optional(
      Type.Boolean({ description: "Put the tokens around the text that the tokenizer adds. Default true." }),
    ),
  },
  { additionalProperties: false },
);

const Tokens = Type.Array(Type.Integer({ minimum: 0, maximum: 2 ** 31 - 1 }));

export const TokenizeResponse = Type.Object({
  tokens: Tokens,
  count: Type.Integer(),
  max_model_len: Type.Integer({ description: "Longest sequence in tokens, prompt and answer." }),
});

export const DetokenizeRequest = Type.Object({ tokens: Tokens }, { additionalProperties: false });
export const DetokenizeResponse = Type.Object({ prompt: Type.String() });

const NullableString = Type.Union([Type.String(), Type.Null()]);
export const TokenizerInfo = Type.Object({
  bos_token: NullableString,
  eos_token: NullableString,
  pad_token: NullableString,
  chat_template: NullableString,
});
