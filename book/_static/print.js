// On paper everything that explains is open; hints, solutions and folded code stay closed.
(() => {
  let opened = [];
  addEventListener("beforeprint", () => {
    const all = document.querySelectorAll(".bd-article details:not([open], .fold)");
    opened = [...all].filter((details) => !details.closest(".exercise-box"));
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });
})();
