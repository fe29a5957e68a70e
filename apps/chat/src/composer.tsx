/** Where the reader writes: Enter sends, Shift+Enter begins a line; the button sends or stops. */
import type { RefObject } from "preact";
import { useEffect, useState } from "preact/hooks";

interface ComposerProps {
  readonly input: RefObject<HTMLTextAreaElement | null>;
  readonly ready: boolean;
  readonly running: boolean;
  readonly continues: boolean;
  readonly onSend: (text: string) => void;
  readonly onStop: () => void;
}

export function Composer({ input, ready, running, continues, onSend, onStop }: ComposerProps) {
  const [text, setText] = useState("");
  const sendable = ready && !running && text.trim() !== "";
  useEffect(() => {
    // Not from a control that the reader has gone to while the model loaded.
    if (ready && document.activeElement === document.body) input.current?.focus();
  }, [ready]);

  const send = () => {
    if (!sendable) return;
    onSend(continues ? text : text.trim());
    setText("");
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <label class="hidden" for="text">
        {continues ? "Text to go on with" : "Message"}
      </label>
      <textarea
        id="text"
        ref={input}
        rows={2}
        value={text}
        placeholder={continues ? "Once upon a time" : "Message"}
        onInput={({ currentTarget }) => setText(currentTarget.value)}
        onKeyDown={(event) => {
          // While an input method composes a character, Enter is its own.
          if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          send();
        }}
      />
      {running ? (
        <button type="button" class="primary" onClick={onStop} title="Esc">
          Stop
        </button>
      ) : (
        <button type="submit" class="primary" disabled={!sendable}>
          Send
        </button>
      )}
    </form>
  );
}
