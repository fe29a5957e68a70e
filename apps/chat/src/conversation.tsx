/** The messages; it stays at the end while an answer grows, unless the reader has scrolled away. */
import { useLayoutEffect, useRef } from "preact/hooks";
import type { Message } from "./api.js";

interface ConversationProps {
  readonly messages: readonly Message[];
  readonly running: boolean;
  /** The model goes on with a text instead of answering. */
  readonly continues: boolean;
}

/** Pixels from the end within which the reader counts as being there. */
const NEAR = 80;

export function Conversation({ messages, running, continues }: ConversationProps) {
  const box = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  useLayoutEffect(() => {
    const element = box.current!;
    if (atEnd.current || messages.at(-1)?.role === "user") element.scrollTop = element.scrollHeight;
  }, [messages]);

  return (
    <main>
      <div
        ref={box}
        class="log"
        role="log"
        aria-label="Conversation"
        aria-live="polite"
        aria-busy={running}
        // Scrolled with the arrow keys once it has the focus.
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard.
        tabIndex={0}
        onScroll={({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) => {
          atEnd.current = scrollHeight - scrollTop - clientHeight < NEAR;
        }}
      >
        {messages.length === 0 && (
          <p class="empty">
            {continues ? "This model goes on with a text: write how it begins." : "Ask something."}
          </p>
        )}
        {messages.map(({ role, text }, i) => (
          // Messages never change places: that is what they are known by.
          <article key={i} class={role}>
            <h2>{role === "user" ? "You" : "Model"}</h2>
            <p>{text}</p>
          </article>
        ))}
        {running && messages.at(-1)?.role === "user" && (
          <p class="waiting" aria-hidden="true">
            …
          </p>
        )}
      </div>
    </main>
  );
}
