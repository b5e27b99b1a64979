'use strict';
// Comfort only: the page is complete without it.
(() => {
  const all = () => document.querySelectorAll('details');
  const button = (words, act) => {
    const made = document.createElement('button');
    made.type = 'button';
    made.textContent = words;
    made.addEventListener('click', act);
    return made;
  };
  const copy = async (event, pre) => {
    const made = event.currentTarget;
    try {
      await navigator.clipboard.writeText(pre.textContent);
      made.textContent = 'copied';
    } catch {
      getSelection().selectAllChildren(pre);
      made.textContent = 'selected';
    }
    setTimeout(() => { made.textContent = 'copy'; }, 2000);
  };
  for (const pre of document.querySelectorAll('.causes pre.cmd, .ticket pre')) {
    const made = button('copy', (event) => copy(event, pre));
    made.className = 'copy';
    made.setAttribute('aria-label', pre.classList.contains('cmd') ? `copy ${pre.textContent}` : 'copy the text');
    pre.parentNode.classList.add('copies');
    pre.after(made);
  }
  const fold = button('open all', () => {
    const open = fold.textContent === 'open all';
    for (const each of all()) each.open = open;
    fold.textContent = open ? 'close all' : 'open all';
  });
  const item = document.createElement('li');
  item.append(fold);
  document.querySelector('nav ul').append(item);
  let closed = [];
  addEventListener('beforeprint', () => {
    closed = [...all()].filter((each) => !each.open);
    for (const each of closed) each.open = true;
  });
  addEventListener('afterprint', () => { for (const each of closed) each.open = false; });
})();
