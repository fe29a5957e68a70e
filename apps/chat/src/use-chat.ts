/** A conversation with the model: sending, streaming, stopping, answering again. */
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, fetchModel, type Message, type ServedModel, streamAnswer } from "./api.js";
import type { Settings } from "./settings.js";

export interface Chat {
  /** Null until the server has named it. */
  readonly model: ServedModel | null;
  readonly messages: readonly Message[];
  readonly running: boolean;
  /** Tokens a second of the last answer, after its first token. */
  readonly speed: number | null;
  readonly error: string | null;
  readonly needsKey: boolean;
  send(text: string): void;
  stop(): void;
  /** Takes the last answer back and asks for another one. */
  regenerate(): void;
  clear(): void;
}

export function useChat(settings: Settings): Chat {
  const [model, setModel] = useState<ServedModel | null>(null);
  const [messages, setMessages] = useState<readonly Message[]>([]);
  const [running, setRunning] = useState(false);
  const [speed, setSpeed] = useState<number | null>(null);
  const [failure, setFailure] = useState<ApiError | null>(null);
  const abort = useRef<AbortController | null>(null);

  const fail = (error: unknown) =>
    setFailure(error instanceof ApiError ? error : new ApiError(0, String(error)));

  useEffect(() => {
    setFailure(null);
    fetchModel(settings).then(setModel, fail);
  }, [settings.apiKey]);

  const answer = async (asked: readonly Message[]) => {
    if (!model) return;
    const controller = new AbortController();
    abort.current = controller;
    setRunning(true);
    setSpeed(null);
    setFailure(null);
    setMessages(asked);
    let text = "";
    let pieces = 0;
    let first = 0;
    try {
      for await (const piece of streamAnswer(model, asked, settings, controller.signal)) {
        // The first piece of a chat names the role and has no text.
        if (piece.text !== "" && pieces++ === 0) first = performance.now();
        text += piece.text;
        const seconds = (performance.now() - first) / 1000;
        const tokens = piece.tokens ?? pieces;
        if (pieces > 1 && seconds > 0) setSpeed((tokens - 1) / seconds);
        if (text !== "") setMessages([...asked, { role: "assistant", text }]);
      }
    } catch (error) {
      if (!controller.signal.aborted) fail(error);
    } finally {
      // Another conversation may have begun.
      if (abort.current === controller) {
        abort.current = null;
        setRunning(false);
      }
    }
  };

  const stop = () => abort.current?.abort();
  return {
    model,
    messages,
    running,
    speed,
    error: failure?.message ?? null,
    needsKey: failure?.status === 401,
    send: (text) => void answer([...messages, { role: "user", text }]),
    stop,
    regenerate: () => {
      const last = messages.findLastIndex(({ role }) => role === "user");
      if (last >= 0) void answer(messages.slice(0, last + 1));
    },
    clear: () => {
      stop();
      abort.current = null;
      setRunning(false);
      setMessages([]);
      setSpeed(null);
      setFailure(null);
    },
  };
}
