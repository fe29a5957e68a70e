/**
 * Token ids to text, one at a time. The concatenation of what `push` and `flush` return is what decoding all
 * ids at once gives; a character whose bytes come in several tokens is held back until it is whole.
 *
 * Decoders understood: ByteLevel; Metaspace; and sequences of Replace, ByteFallback, Fuse and Strip, the
 * SentencePiece family. Others are refused: none of the architectures that we run has one.
 */
import { InputError } from "../errors.js";
import { BYTE_OF_CHARACTER } from "./byte-level.js";

export interface Detokenizer {
  /** The text that has become certain with this token; often empty. */
  push(id: number): string;
  /** What is still held back: an incomplete character becomes U+FFFD. The detokenizer can go on afterwards. */
  flush(): string;
}

/** What a token contributes: bytes that may be a part of a character, or whole text. */
type Piece = Uint8Array | string;

/** A decoder of tokenizer.json, reduced to what it does to a token and to the start of the text. */
export interface DecodingRules {
  /** Bytes are spelt with the alphabet of byte-level BPE. */
  readonly byteLevel: boolean;
  /** Tokens `<0x0A>` are single bytes. */
  readonly byteFallback: boolean;
  /** Replaced in each token, in order. */
  readonly replacements: readonly (readonly [from: string, to: string])[];
  /** Up to `count` times removed at the start of the text. */
  readonly strip: { readonly content: string; readonly count: number };
}

interface DecoderJson {
  readonly type?: unknown;
  readonly decoders?: unknown;
  readonly pattern?: unknown;
  readonly content?: unknown;
  readonly replacement?: unknown;
  readonly start?: unknown;
  readonly stop?: unknown;
}

/** Reads the `decoder` of a tokenizer.json. InputError for one that cannot be followed token by token. */
export function readDecodingRules(decoder: unknown): DecodingRules {
  const unsupported = (what: string) =>
    new InputError(`tokenizer.json has a decoder that is not supported: ${what}`);
  if (typeof decoder !== "object" || decoder === null) throw unsupported("none");
  const root = decoder as DecoderJson;
  const steps = root.type === "Sequence" && Array.isArray(root.decoders) ? root.decoders : [root];
  let byteLevel = false;
  let byteFallback = false;
  let fused = false;
  const replacements: (readonly [string, string])[] = [];
  let strip = { content: " ", count: 0 };
  for (const step of steps as DecoderJson[]) {
    switch (step?.type) {
      case "ByteLevel":
        if (steps.length > 1) throw unsupported("ByteLevel with other steps");
        byteLevel = true;
        break;
      case "Metaspace":
        replacements.push([typeof step.replacement === "string" ? step.replacement : "▁", " "]);
        strip = { content: " ", count: 1 };
        break;
      case "Replace": {
        const from = (step.pattern as { String?: unknown } | undefined)?.String;
        if (typeof from !== "string" || fused || byteFallback) throw unsupported("Replace of this form");
        replacements.push([from, typeof step.content === "string" ? step.content : ""]);
        break;
      }
      case "ByteFallback":
        byteFallback = true;
        break;
      case "Fuse":
        fused = true;
        break;
      case "Strip":
        if (!fused || typeof step.content !== "string" || typeof step.start !== "number" || step.stop !== 0)
          throw unsupported("Strip of this form");
        strip = { content: step.content, count: step.start };
        break;
      default:
        throw unsupported(String(step?.type));
    }
  }
  return { byteLevel, byteFallback, replacements, strip };
}

/** Where the detokenizer finds its tokens. */
export interface TokenTable {
  /** The token's spelling, or undefined where no token has this id. */
  spelling(id: number): string | undefined;
  /** Added tokens are text as they are, never bytes. */
  isAdded(id: number): boolean;
  isSpecial(id: number): boolean;
}

export interface DetokenizerOptions {
  /** Leave special tokens out. Default true. */
  readonly skipSpecialTokens?: boolean;
  /**
   * Whether the first token begins a text (default), where SentencePiece models drop its leading space. False
   * when the text continues another, whose end that space then parts it from.
   */
  readonly startOfText?: boolean;
}

export function createDetokenizer(
  rules: DecodingRules,
  table: TokenTable,
  { skipSpecialTokens = true, startOfText = true }: DetokenizerOptions = {},
): Detokenizer {
  // As in the library, a byte order mark is a character of byte-level text and is dropped elsewhere.
  const utf8 = new TextDecoder("utf-8", { ignoreBOM: rules.byteLevel });
  let toStrip = startOfText ? rules.strip.count : 0;

  const emit = (text: string): string => {
    let rest = text;
    while (toStrip > 0 && rest.length > 0) {
      if (!rest.startsWith(rules.strip.content)) {
        toStrip = 0;
        break;
      }
      rest = rest.slice(rules.strip.content.length);
      toStrip--;
    }
    return rest;
  };

  return {
    push(id) {
      const token = table.spelling(id);
      if (token === undefined || (skipSpecialTokens && table.isSpecial(id))) return "";
      const piece = pieceOf(token, table.isAdded(id), rules);
      return emit(typeof piece === "string" ? utf8.decode() + piece : utf8.decode(piece, { stream: true }));
    },
    flush: () => emit(utf8.decode()),
  };
}

/** The bytes of a token on its own, special or not; none where no token has this id. */
export function bytesOfToken(rules: DecodingRules, table: TokenTable, id: number): Uint8Array {
  const token = table.spelling(id);
  if (token === undefined) return new Uint8Array(0);
  const piece = pieceOf(token, table.isAdded(id), rules);
  return typeof piece === "string" ? new TextEncoder().encode(piece) : piece;
}

function pieceOf(token: string, added: boolean, rules: DecodingRules): Piece {
  if (rules.byteLevel) {
    return added ? token : Uint8Array.from(token, (character) => BYTE_OF_CHARACTER.get(character) ?? 0);
  }
  let text = token;
  for (const [from, to] of rules.replacements) text = text.replaceAll(from, to);
  if (rules.byteFallback && /^<0x[0-9A-Fa-f]{2}>$/.test(text)) {
    return Uint8Array.of(Number.parseInt(text.slice(3, 5), 16));
  }
  return text;
}
