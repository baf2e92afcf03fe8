// The server's key: asked for when it is needed, kept until the tab is closed.
import { byId } from "./nodes.js";

const NAME = "samo-key";
// What a header can carry: ASCII without spaces.
const KEY = /^[\x21-\x7e]+$/;

/** The key given before; empty without one. */
export function storedKey() {
  const key = sessionStorage.getItem(NAME) ?? "";
  return KEY.test(key) ? key : "";
}

/** Keep a key that the server accepted. */
export function keepKey(key) {
  sessionStorage.setItem(NAME, key);
}

/** Ask for a key; empty where none was given. */
export function askForKey(wrong) {
  const dialog = byId("key");
  const value = byId("key-value");
  const help = byId("key-help");
  help.textContent = wrong
    ? "That key was not accepted. Type it again, or ask whoever runs this server."
    : "Whoever runs it has given you one. It is kept until this tab is closed.";
  help.classList.toggle("wrong", wrong);
  value.value = "";
  return new Promise((resolve) => {
    const form = dialog.querySelector("form");
    form.onsubmit = (event) => {
      event.preventDefault();
      const key = value.value.trim();
      if (!KEY.test(key)) {
        help.textContent = "A key has only unaccented letters, digits and signs, and no spaces. Type it again.";
        help.classList.add("wrong");
        return;
      }
      dialog.onclose = null;
      dialog.close();
      resolve(key);
    };
    dialog.onclose = () => resolve("");
    byId("key-cancel").onclick = () => dialog.close();
    dialog.showModal();
  });
}
