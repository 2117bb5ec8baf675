"""The playbook language: strict YAML, model, expressions, compiled blueprint, total evaluator."""
