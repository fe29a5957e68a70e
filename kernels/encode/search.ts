/** What a search works on: every field is one 32-bit word; src/codec/trellis/viterbi.ts writes it. */
// @ts-ignore: decorator
@unmanaged
export class Search {
  /** f32 [width][stride], row r at element r. */
  targets: usize;
  stride: i32;
  width: i32;
  /** f32 [rows]: weight of a row's squared error. */
  rowWeights: usize;
  /** Cost levels of a weighted squared error of 1. */
  scale: f32;
  /** f32 [4][256] in the order of the distances. */
  codewords: usize;
  codeBits: i32;
  /** u16 source [states] (byte offsets), then u8 code [states]. */
  schedule: usize;
  rows: i32;
  interleave: i32;
  tailBiting: i32;
  /** u16 [interleave]: position of each sequence's first state; unused when tail-biting. */
  starts: usize;
  /** u8 [rows], written: codes, and the chosen codeword of each row in the order of the distances. */
  codes: usize;
  path: usize;
  /** u16 [steps + 1][states] and u16 [steps][256]; steps up to 2112. */
  costs: usize;
  distances: usize;
}
