/** What generation asks of an answer's grammar; free of Node. */
/** The grammar of one answer, and how far it is. */
export interface Constraint {
  /** Which tokens may follow: a bit an id, from the lowest of word 0 on. The same until `accept`. */
  mask(): Promise<Int32Array>;
  /** The token that follows, one of those; not one that ends the answer. */
  accept(id: number): void;
  free(): void;
}
