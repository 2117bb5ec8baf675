"""Templates as published NoETL playbooks write them, in our own words: the fuzz mutates them; all must compile."""

from __future__ import annotations

from typing import Final

PUBLISHED: Final = (
    "{{ workload.api_url }}/v1/items?page={{ iter.page | default(1) }}",
    "{{ (output.data.row_count | default(0) | int) > 0 }}",
    "{{ rows[0].a if (rows | length | default(0)) > 0 else (ctx.last | default('')) }}",
    "{{ outcome.status == 'error' and outcome.http.status in [429, 500, 502, 503, 504] }}",
    "{{ outcome.result.data.paging.hasMore | default(false) }}",
    "{{ (iter.page | int) + 1 }}",
    "{{ iter.next_cursor is not none }}",
    "{{ event.name == 'loop.done' }}",
    "Bearer {{ keychain.openai_token.api_key }}",
    "{{ result.status if result is defined else 'completed' }}",
    "{{ process_high.category if process_high else process_low.category }}",
    "{{ start.base_url }}/history?conid={{ i }}&bar={{ t }}{% if u %}&startTime={{ u }}{% endif %}",
    "{% if yes %}true{% else %}false{% endif %}, {% if nothing is none %}NULL{% else %}'{{ nothing }}'{% endif %}",
    "'{{ m | tojson | replace(\"'\", \"''\") }}'",
    "INSERT INTO t VALUES ({{ n }}, '{{ t | replace(\"'\", \"''\") }}'){% if not yes %}, (0, ''){% endif %};",
    '[{% for r in rows %}{"a": {{ r.a }}, "b": {{ r.b | tojson }}}{% if not loop.last %},{% endif %}{% endfor %}]',
    "{% for k, v in m.items() %}{{ k }}={{ v }}{{ '&' if not loop.last else '' }}{% endfor %}",
    "{%- for x in xs if x > 0 -%}{{ loop.index }}. {{ x }}\n{%- else -%}none{%- endfor %}",
    "{% set total = xs | sum %}{{ (total / (xs | length)) | round(2) if xs else 0 }}",
    "{% set ns = namespace(n=0) %}{% for x in xs %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}",
    "{{ ys | map('upper') | join(', ') }}",
    "{{ rows | selectattr('a', 'gt', 0) | map(attribute='b') | list }}",
    "{{ rows | sort(attribute='a', reverse=true) | first }}",
    "{{ t.split(',')[0] | trim | lower }}",
    "{{ t | b64encode | b64decode }}",
    "{{ m.get('a', 0) + (m | get('b') or 0) }}",
    "{{ '%02d:%02d' % (i // 60, i % 60) }}",
    "{{ workload.items[ctx.index | default(0) | int] }}",
    "{{ args.page_size | default(workload.page_size) }}",
    "save_{{ execution_id }}_{{ _index }}",
    "{{ not yes }}",
    "{{ nothing }}",
    "{# note #}{{ xs }}",
    "{{ range(1, 4) | list }}",
)
