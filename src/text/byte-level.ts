/**
 * The alphabet of byte-level BPE (GPT-2): every byte is written as one printable character. Bytes that are
 * printable in Latin-1 stand for themselves, the 68 others are numbered upwards from U+0100.
 */
export const BYTE_OF_CHARACTER: ReadonlyMap<string, number> = buildAlphabet();

function buildAlphabet(): Map<string, number> {
  const bytes = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    bytes.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return bytes;
}
