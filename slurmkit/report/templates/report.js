"use strict";
// Tables sort by a click on a header, and are filtered by what is typed above them.
const NUMBER = /^[+-]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[+-]?\d+)?/i;

function keyOf(row, column) {
  const text = row.cells[column].textContent.trim();
  const found = text.match(NUMBER);
  return { text, number: found ? Number(found[0].replaceAll(",", "")) : NaN };
}

function compare(one, other) {
  if (Number.isNaN(one.number) && Number.isNaN(other.number)) return one.text.localeCompare(other.text);
  if (Number.isNaN(one.number)) return 1; // what has no number comes last, either way
  if (Number.isNaN(other.number)) return -1;
  return one.number - other.number;
}

for (const header of document.querySelectorAll("th")) {
  header.querySelector("button").addEventListener("click", () => {
    const body = header.closest("table").tBodies[0];
    const descending = header.getAttribute("aria-sort") === "ascending";
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const keyed = [...body.rows].map((row) => ({ row, key: keyOf(row, header.cellIndex) }));
    const allText = keyed.every(({ key }) => Number.isNaN(key.number));
    keyed.sort((one, other) => {
      const missing = Number.isNaN(one.key.number) || Number.isNaN(other.key.number);
      const order = compare(one.key, other.key);
      return descending && (allText || !missing) ? -order : order;
    });
    body.append(...keyed.map(({ row }) => row));
  });
}

for (const input of document.querySelectorAll(".filter input")) {
  const rows = [...input.closest("label").nextElementSibling.querySelectorAll("tbody tr")];
  const told = input.parentNode.querySelector("output");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    told.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  });
}

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : window.matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
