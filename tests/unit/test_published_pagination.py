"""Pagination as NoETL's documentation writes it: endpoints side by side, each one's pages in order on one lease."""

from __future__ import annotations

from typing import Any

import pytest

from edge.core.events import LoopItems, TaskDone
from edge.testing.box import Box
from edge.testing.pool import Lost
from playbooks.compile import compile_playbook

#: The example of the reference's page on pagination; the API is a block of python, the store collects in `iter`.
SOURCE = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: pages, path: pages}
workload:
  endpoints:
    - {path: /a, page_size: 10, pages: 3}
    - {path: /b, page_size: 5, pages: 1}
    - {path: /gone, page_size: 5, pages: 0}
workflow:
  - step: fetch_all_endpoints
    loop:
      spec: {mode: parallel, max_in_flight: 10, policy: {exec: distributed}}
      in: "{{ workload.endpoints }}"
      iterator: endpoint
    tool:
      - name: init_iter
        kind: noop
        spec: {policy: {rules: [{else: {then: {do: continue, set_iter: {page: 1, has_more: true, seen: 0}}}}]}}
      - name: fetch_page
        kind: python
        input: {path: "{{ iter.endpoint.path }}", page: "{{ iter.page }}", pages: "{{ iter.endpoint.pages }}"}
        code: |
          found = page <= pages
          paging = {"hasMore": page < pages, "page": page}
          data = [f"{path}#{page}"] if found else []
          result = {"http_status": 200 if found else 404, "paging": paging, "data": data}
        spec:
          policy:
            rules:
              - when: "{{ outcome.status == 'error' }}"
                then: {do: retry, attempts: 10, backoff: exponential, delay: 2.0}
              - else:
                  then:
                    do: continue
                    set_iter:
                      http_status: "{{ outcome.result.http_status | default(200) }}"
                      has_more: "{{ outcome.result.paging.hasMore | default(false) }}"
                      page: "{{ outcome.result.paging.page | default(iter.page) }}"
        output:
          accumulate: {enabled: true, strategy: concat, merge_path: $.data, manifest_as: items}
      - name: route_by_status
        kind: noop
        spec:
          policy:
            rules:
              - when: "{{ iter.http_status == 404 }}"
                then: {do: jump, to: store_404}
              - else: {then: {do: jump, to: store_200}}
      - name: store_200
        kind: transform
        value: "{{ iter.seen + 1 }}"
        spec: {policy: {rules: [{else: {then: {do: jump, to: paginate, set_iter: {seen: "{{ outcome.result }}"}}}}]}}
      - name: store_404
        kind: noop
        spec: {policy: {rules: [{else: {then: {do: jump, to: paginate}}}]}}
      - name: paginate
        kind: transform
        value: {items: "{{ iter['items'] }}", seen: "{{ iter.seen }}"}
        spec:
          policy:
            rules:
              - when: "{{ iter.has_more == true }}"
                then: {do: jump, to: fetch_page, set_iter: {page: "{{ (iter.page | int) + 1 }}"}}
              - else: {then: {do: break}}
    next:
      spec: {mode: exclusive}
      arcs:
        - step: validate_results
          when: "{{ event.name == 'loop.done' }}"
        - step: cleanup
          when: "{{ event.name == 'step.failed' }}"
  - step: validate_results
    tool: {kind: transform, value: "{{ fetch_all_endpoints }}"}
  - step: cleanup
    tool: {kind: noop}
"""
PAGES = [
    {"items": ["/a#1", "/a#2", "/a#3"], "seen": 3},
    {"items": ["/b#1"], "seen": 1},
    {"items": [], "seen": 0},
]


async def run(box: Box) -> Any:
    await box.register(compile_playbook(SOURCE.encode(), "pages.yaml"))
    box.submit("pages")
    await box.settle()
    return box.document().get("result", box.document().get("error"))


async def test_the_published_pagination_pattern(box: Box) -> None:
    """Each endpoint's pages come in order, routed by status without falling through, and add up in `iter`."""
    assert await run(box) == PAGES
    assert sum(event.body.count for event in box.events() if isinstance(event.body, LoopItems)) == 3


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_pages_that_were_recorded_are_not_fetched_again(box: Box, lost: int) -> None:
    """A worker that dies over an endpoint costs a claim, not the result."""
    number = 0
    work = box.pool.work

    def answer(claim: Any) -> Any:
        nonlocal number
        number += 1
        return Lost() if number == lost else work(claim)

    box.pool.answer = answer
    assert await run(box) == PAGES
    tasks = [
        (event.iteration, event.body.number) for event in box.events() if isinstance(event.body, TaskDone)
    ]
    assert len(set(tasks)) == len(tasks), "each invocation is recorded once"
