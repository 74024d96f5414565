// Chapters come first, then the other pages, then the API reference.
// The other numbers are those of Sphinx, which wants all of them or none.
var Scorer = {
  score: ([page, , , , score]) =>
    score - (page.startsWith("book/api") ? 100 : /^book\/\d\d_/.test(page) ? 0 : 20),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
