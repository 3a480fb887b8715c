"use strict";
(() => {
  // The page is whole without this: it only adds sorting and a filter to the table of files.
  const table = document.getElementById("files");
  if (table) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const value = (row, n) => {
      const cell = row.cells[n];
      if (!cell.classList.contains("n")) return cell.textContent;
      return parseFloat(cell.dataset.v ?? cell.textContent) || 0;
    };
    const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
    heads.forEach((head, n) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const sign = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
        const rows = [...body.rows].sort((a, b) => sign * compare(value(a, n), value(b, n)));
        body.append(...rows);
      });
    });
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = "Filter by name, outcome, slot";
    input.setAttribute("aria-label", "Filter the files");
    const note = document.getElementById("files-note");
    const whole = note.textContent;
    note.setAttribute("role", "status");
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      let shown = 0;
      for (const row of body.rows) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
        shown += row.hidden ? 0 : 1;
      }
      note.textContent = wanted ? `${shown} shown of ${body.rows.length}.` : whole;
    });
    note.after(input);
  }
  document.documentElement.dataset.enhanced = "yes";
})();
