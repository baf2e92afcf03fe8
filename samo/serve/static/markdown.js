// The Markdown of model cards as nodes: headings, paragraphs, quotes, lists, tables, code. Everything else stays text.
import { node } from "./nodes.js";

const INLINE = /\\([\\`*|<>[\]_#])|\*\*(.+?)\*\*|`([^`]+)`/g;

/** Inline Markdown as text nodes, `strong` and `code`. */
function inline(text) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    parts.push(text.slice(from, match.index));
    if (match[1] !== undefined) parts.push(match[1]);
    else if (match[2] !== undefined) parts.push(node("strong", {}, ...inline(match[2])));
    else parts.push(node("code", {}, match[3]));
    from = match.index + match[0].length;
  }
  parts.push(text.slice(from));
  return parts.filter((part) => part !== "");
}

function cells(line) {
  return line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "").split(/(?<!\\)\|/).map((cell) => cell.trim());
}

function table(lines) {
  const [head, marks, ...rows] = lines.map(cells);
  const side = marks.map((mark) => (mark.endsWith(":") && !mark.startsWith(":") ? "number" : null));
  const row = (tag, line) => node("tr", {}, ...line.map((cell, i) => node(tag, { class: side[i] ?? null }, ...inline(cell))));
  return node(
    "div", { class: "wide-table", tabindex: 0, role: "region", "aria-label": "Table" },
    node("table", {}, node("thead", {}, row("th", head)), node("tbody", {}, ...rows.map((line) => row("td", line)))),
  );
}

function list(lines) {
  const items = [];
  for (const line of lines) {
    if (/^- /.test(line)) items.push(line.slice(2));
    else items[items.length - 1] += ` ${line.trim()}`;
  }
  return node("ul", {}, ...items.map((item) => node("li", {}, ...inline(item))));
}

function block(lines, top) {
  const [first] = lines;
  const heading = /^(#{1,6}) (.*)/.exec(first);
  if (heading) {
    const level = Math.min(6, heading[1].length + top - 1);
    const rest = lines.slice(1);
    return [node(`h${level}`, {}, ...inline(heading[2])), ...(rest.length ? block(rest, top) : [])];
  }
  if (first.startsWith("```")) return [node("pre", { tabindex: 0 }, lines.slice(1, -1).join("\n"))];
  if (first.startsWith("- ")) return [list(lines)];
  if (first.startsWith(">")) return [node("blockquote", {}, ...inline(lines.map((line) => line.replace(/^> ?/, "")).join(" ")))];
  if (first.startsWith("|") && /^\|[\s:|-]+$/.test(lines[1] ?? "")) return [table(lines)];
  return [node("p", {}, ...inline(lines.join(" ")))];
}

/** The lines of a text, in blocks; a fence is one block, empty lines and all. */
function blocks(text) {
  const found = [];
  let own = [];
  let fenced = false;
  const end = () => {
    if (own.length) found.push(own);
    own = [];
  };
  for (const line of text.split(/\r?\n/)) {
    const fence = line.startsWith("```");
    if (fence && !fenced) end();
    if (!fenced && !fence && line.trim() === "") end();
    else own.push(line);
    if (fence && fenced) end();
    fenced = fence ? !fenced : fenced;
  }
  // A fence without an end is closed by the text's.
  if (fenced) own.push("```");
  end();
  return found;
}

/** Markdown as nodes; a `#` becomes a heading of level `top`. */
export function markdown(text, top = 3) {
  return blocks(text).flatMap((lines) => block(lines, top));
}

/** The text below each `## ` heading, by its title; what stands before the first is under "". */
export function sections(text) {
  const found = new Map([["", ""]]);
  let title = "";
  let fenced = false;
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith("```")) fenced = !fenced;
    const heading = fenced ? null : /^## (.*)/.exec(line);
    if (heading) found.set((title = heading[1].trim()), "");
    else found.set(title, `${found.get(title)}${line}\n`);
  }
  return found;
}
