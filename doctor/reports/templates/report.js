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
  for (const pre of document.querySelectorAll('.causes pre.cmd, .ticket pre')) {
    const say = (word) => {
      made.textContent = word;
      made.setAttribute('aria-label', `${word} ${pre.matches('.cmd') ? pre.textContent : 'the text for a ticket'}`);
    };
    const made = button('copy', async () => {
      try {
        await navigator.clipboard.writeText(pre.textContent);
        say('copied');
      } catch {
        getSelection().selectAllChildren(pre);
        say('selected');
      }
      setTimeout(say, 2000, 'copy');
    });
    say('copy');
    made.className = 'copy';
    const box = document.createElement('div');
    box.className = 'copies';
    pre.before(box);
    box.append(pre, made);
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
