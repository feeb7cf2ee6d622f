"use strict";
const number = (text) => {
  const plain = text.replace(/[,\s%]/g, "");
  return plain === "" || isNaN(plain) ? null : Number(plain);
};
const sortBy = (table, column, falling) => {
  const cell = (row) => row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const [one, other] = [number(cell(a)), number(cell(b))];
    if (one === null && other === null) return cell(a).localeCompare(cell(b));
    return one === null ? -1 : other === null ? 1 : one - other;
  };
  const rows = [...table.tBodies[0].rows].sort((a, b) => (falling ? compare(b, a) : compare(a, b)));
  table.tBodies[0].append(...rows);
};
for (const table of document.querySelectorAll("table.rows, table.matrix")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      sortBy(table, column, falling);
    });
  });
}
for (const button of document.querySelectorAll("button[data-key]")) {
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    const section = button.closest("section"), opened = section.querySelector(".opened");
    const was = button.getAttribute("aria-pressed") === "true";
    section.querySelectorAll("button[aria-pressed=true]").forEach((other) => other.setAttribute("aria-pressed", "false"));
    opened.replaceChildren();
    if (was) return;
    button.setAttribute("aria-pressed", "true");
    const title = document.createElement("h3");
    title.textContent = button.getAttribute("aria-label");
    const found = section.querySelector(`template[data-key="${button.dataset.key}"]`);
    opened.append(title, found.content.cloneNode(true));
  });
}
const openAll = () => document.querySelectorAll("details").forEach((each) => (each.open = true));
const openNamed = () => document.getElementById(location.hash.slice(1))?.querySelector("details")?.setAttribute("open", "");
if (matchMedia("(max-width: 40rem)").matches) {
  document.querySelectorAll("details.later").forEach((each) => (each.open = false));
}
for (const link of document.querySelectorAll("nav a")) {
  link.addEventListener("click", () => {
    document.querySelector(link.hash).querySelector("details")?.setAttribute("open", "");
  });
}
addEventListener("hashchange", openNamed);
addEventListener("beforeprint", openAll);
openNamed();
