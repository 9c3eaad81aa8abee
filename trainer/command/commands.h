// The subcommands of qstep: each registers itself on the command line and runs in its callback.
#pragma once

#include <CLI/CLI.hpp>

namespace qstep::trainer {

// `exit_code` is what main returns when the callback ends without an exception.
void add_train_command(CLI::App& app, int& exit_code);
void add_data_command(CLI::App& app, int& exit_code);
void add_ckpt_command(CLI::App& app, int& exit_code);
void add_generate_command(CLI::App& app, int& exit_code);
void add_eval_command(CLI::App& app, int& exit_code);
void add_bench_command(CLI::App& app, int& exit_code);
void add_bench_step_command(CLI::App& bench, int& exit_code);
void add_bench_ops_command(CLI::App& bench, int& exit_code);
void add_bench_plan_command(CLI::App& bench);
void add_compare_command(CLI::App& app, int& exit_code);
void add_plan_command(CLI::App& app, int& exit_code);
void add_recipe_command(CLI::App& app, int& exit_code);
void add_recipe_ledger(CLI::App& recipe);
void add_report_command(CLI::App& app, int& exit_code);
void add_quantize_command(CLI::App& app, int& exit_code);
void add_selftest_command(CLI::App& app, int& exit_code);
void add_config_command(CLI::App& app, int& exit_code);
void add_doctor_command(CLI::App& app, int& exit_code);

}  // namespace qstep::trainer
