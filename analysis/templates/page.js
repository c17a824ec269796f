"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  // ---- light and dark
  const store = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
                  set: (name) => { try { localStorage.setItem("theme", name); } catch { /* a file may not keep */ } } };
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const button = document.getElementById("theme");
  const name = () => { button.textContent = dark() ? "Light colours" : "Dark colours"; };
  if (["dark", "light"].includes(store.get())) root.dataset.theme = store.get();
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; store.set(root.dataset.theme); name(); });
  name();

  // ---- sorting: a click sorts up, the next down, the third restores the order of the page
  const value = (cell) => cell.dataset.v === undefined ? cell.textContent.trim() : Number(cell.dataset.v);
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : String(a).localeCompare(String(b), "en", { numeric: true });
  const missing = (x) => x === "" || x === "—" || (typeof x === "string" && x.startsWith("NaN"));
  const sort = (table, th, column) => {
    const body = table.tBodies[0];
    table.rowsInOrder ||= [...body.rows];
    const next = { none: "ascending", ascending: "descending", descending: "none" }[th.getAttribute("aria-sort") || "none"];
    table.querySelectorAll("th[aria-sort]").forEach((other) => other.setAttribute("aria-sort", "none"));
    th.setAttribute("aria-sort", next);
    const rows = [...table.rowsInOrder];
    if (next !== "none") {
      const sign = next === "ascending" ? 1 : -1;
      rows.sort((a, b) => {
        const x = value(a.cells[column]), y = value(b.cells[column]);
        return missing(x) - missing(y) || (missing(x) ? 0 : sign * compare(x, y));
      });
    }
    table.toggleAttribute("data-sorted", next !== "none");
    body.append(...rows);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const th of table.querySelectorAll("th[data-column]")) {
      const press = document.createElement("button");
      press.type = "button";
      press.append(...th.childNodes);
      if (!press.textContent.trim()) press.setAttribute("aria-label", "rows");
      th.append(press);
      th.setAttribute("aria-sort", "none");
      press.addEventListener("click", () => sort(table, th, Number(th.dataset.column)));
    }
  }

  // ---- filters: a row stays when it has all the words
  for (const input of document.querySelectorAll("input[data-filter]")) {
    const table = document.getElementById(input.dataset.filter);
    const told = input.closest(".tools").querySelector("[aria-live]");
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      table.toggleAttribute("data-sorted", words.length > 0 || !!table.querySelector('[aria-sort$="ending"]'));
      told.textContent = words.length ? `${shown} of ${table.tBodies[0].rows.length} rows` : "";
    });
  }

  // ---- copying
  for (const press of document.querySelectorAll("button[data-copy]")) {
    press.addEventListener("click", async () => {
      const text = document.getElementById(press.dataset.copy);
      try {
        await navigator.clipboard.writeText(text.textContent);
        press.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text);
        press.textContent = "Selected: press Ctrl+C";
      }
    });
  }
})();
