// Formulas that are wider than the page can be pushed aside with the keyboard, too.
addEventListener("load", () => {
  const reach = () => {
    for (const formula of document.querySelectorAll(".bd-article mjx-container[display]")) {
      if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
      else formula.removeAttribute("tabindex");
    }
  };
  window.MathJax?.startup?.promise?.then(reach);
  addEventListener("resize", reach);
});
