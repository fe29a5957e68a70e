/** Adam (Kingma & Ba, 2015) without weight decay, over one array of parameters. */
const BETA1 = 0.9;
const BETA2 = 0.999;
const EPSILON = 1e-8;

export class Adam {
  readonly #mean: Float32Array;
  readonly #square: Float32Array;
  #power1 = 1;
  #power2 = 1;

  constructor(length: number) {
    this.#mean = new Float32Array(length);
    this.#square = new Float32Array(length);
  }

  step(values: Float32Array, gradient: ArrayLike<number>, learningRate: number): void {
    this.#power1 *= BETA1;
    this.#power2 *= BETA2;
    const rate = learningRate / (1 - this.#power1);
    const correction = 1 / Math.sqrt(1 - this.#power2);
    const mean = this.#mean;
    const square = this.#square;
    for (let i = 0; i < values.length; i++) {
      const g = gradient[i];
      const m = BETA1 * mean[i] + (1 - BETA1) * g;
      const s = BETA2 * square[i] + (1 - BETA2) * g * g;
      mean[i] = m;
      square[i] = s;
      values[i] -= (rate * m) / (Math.sqrt(s) * correction + EPSILON);
    }
  }
}
