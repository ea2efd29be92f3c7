"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const compared = (a, b, column) => {
    const [one, other] = [a.cells[column], b.cells[column]];
    if (one.dataset.number === undefined) {
      return one.textContent.localeCompare(other.textContent, "en", { numeric: true });
    }
    return parseFloat(one.dataset.number) - parseFloat(other.dataset.number);
  };
  const unknown = (row, column) => {
    const cell = row.cells[column];
    return (cell.dataset.number ?? cell.textContent.trim()) === "";
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rows = [...body.rows];
      const first = rows.some((row) => row.cells[column].dataset.number) ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? second : first;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      // What is unknown comes last in both orders.
      rows.sort((a, b) => unknown(a, column) - unknown(b, column) || sign * compared(a, b, column) || 0);
      body.append(...rows);
    });
  });
}
for (const filter of document.querySelectorAll("p.filter")) {
  const table = filter.nextElementSibling.querySelector("table");
  const input = filter.querySelector("input");
  const shown = filter.querySelector("output");
  const rows = [...table.tBodies[0].rows].map((row) => [
    row,
    [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase(),
  ]);
  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const [row, text] of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      count += !row.hidden;
    }
    shown.value = words.length ? `${count} of ${rows.length} rows` : "";
  };
  input.addEventListener("input", apply);
  filter.hidden = false;
  // A browser that comes back to the page may have kept the text.
  apply();
}
