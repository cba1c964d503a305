//! `RecurringRunService`, and `ScheduleService` with what we add to it.

use ferroflow_proto::json::{struct_to_map, timestamp};
use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::kfp::v2beta1::recurring_run::{
    Mode, PipelineSource as GivenSource, Status as State,
};
use ferroflow_proto::kfp::v2beta1::recurring_run_service_server::RecurringRunService;
use ferroflow_proto::kfp::v2beta1::trigger::Trigger as GivenTrigger;
use ferroflow_proto::pipelines::v1::schedule_service_server::ScheduleService;
use ferroflow_proto::pipelines::v1::{ListDueTimesRequest, ListDueTimesResponse};
use ferroflow_schedule::{Limits, Trigger, When};
use ferroflow_service::grpc::caller;
use ferroflow_service::listing::ListRequest;
use ferroflow_service::request::{invalid, non_negative, parsed, parsed_opt, time_opt};
use ferroflow_types::{Caller, Timestamp};
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::elide::SizeBudget;
use super::{Api, convert, into_status, source};
use crate::app::create_run::{CreateRun, PipelineSource};
use crate::app::recurring_runs::{self, CreateRecurringRun};
use crate::domain::recurring::{PipelineChoice, RecurringRun};

/// Due times in one answer.
const DUE_TIMES_MAX: usize = 1000;
const DUE_TIMES_DEFAULT: usize = 5;

const RECURRING_RUN: &str = "recurring_run";

fn source_of(given: Option<&GivenSource>) -> Result<PipelineSource, Status> {
    match given {
        Some(GivenSource::PipelineSpec(spec)) => source::inline(RECURRING_RUN, spec),
        Some(GivenSource::PipelineVersionReference(named)) => source::stored(RECURRING_RUN, named),
        _ => Err(source::missing(RECURRING_RUN)),
    }
}

fn trigger_of(given: Option<pb::Trigger>) -> Result<Trigger, Status> {
    let (when, place, start, end) = match given.and_then(|given| given.trigger) {
        Some(GivenTrigger::CronSchedule(given)) => (
            When::Cron(given.cron),
            "cron_schedule",
            given.start_time,
            given.end_time,
        ),
        Some(GivenTrigger::PeriodicSchedule(given)) => (
            When::Periodic(given.interval_second),
            "periodic_schedule",
            given.start_time,
            given.end_time,
        ),
        // As upstream, a recurring run without a trigger makes one run, when it is created.
        None => (When::Once, "", None, None),
    };
    let field = |name: &str| format!("recurring_run.trigger.{place}.{name}");
    Ok(Trigger {
        when,
        start: time_opt(&field("start_time"), start)?,
        end: time_opt(&field("end_time"), end)?,
    })
}

fn create_of(given: pb::RecurringRun) -> Result<CreateRecurringRun, Status> {
    // As upstream, a mode that is left out disables it.
    let enabled = given.mode() == Mode::Enable;
    let config = given.runtime_config.unwrap_or_default();
    Ok(CreateRecurringRun {
        run: CreateRun {
            id: None,
            display_name: given.display_name,
            description: given.description,
            experiment: parsed_opt("recurring_run.experiment_id", &given.experiment_id)?,
            pipeline: source_of(given.pipeline_source.as_ref())?,
            parameters: source::parameters(RECURRING_RUN, &config)?,
            pipeline_root: config.pipeline_root,
            service_account: given.service_account,
            scheduled_at: None,
        },
        trigger: trigger_of(given.trigger)?,
        limits: Limits {
            max_concurrency: given.max_concurrency,
            no_catchup: given.no_catchup,
        },
        enabled,
    })
}

fn pipeline_source(found: &RecurringRun, spec: Option<&Value>) -> Option<GivenSource> {
    let reference = |pipeline: String, version: String| {
        GivenSource::PipelineVersionReference(pb::PipelineVersionReference {
            pipeline_id: pipeline,
            pipeline_version_id: version,
        })
    };
    match &found.pipeline {
        PipelineChoice::Version {
            pipeline, version, ..
        } => Some(reference(pipeline.to_string(), version.to_string())),
        PipelineChoice::Latest { pipeline } => Some(reference(pipeline.to_string(), String::new())),
        PipelineChoice::Inline { .. } => {
            spec.map(|spec| GivenSource::PipelineSpec(convert::fields(spec)))
        }
    }
}

fn trigger(found: &Trigger) -> Option<pb::Trigger> {
    let exact = |at: Option<Timestamp>| at.map(|at| timestamp(at.millis()));
    let (start_time, end_time) = (exact(found.start), exact(found.end));
    let trigger = match &found.when {
        When::Cron(cron) => GivenTrigger::CronSchedule(pb::CronSchedule {
            start_time,
            end_time,
            cron: cron.clone(),
        }),
        When::Periodic(seconds) => GivenTrigger::PeriodicSchedule(pb::PeriodicSchedule {
            start_time,
            end_time,
            interval_second: *seconds,
        }),
        When::Once => return None,
    };
    Some(pb::Trigger {
        trigger: Some(trigger),
    })
}

fn recurring_run(found: &RecurringRun, spec: Option<&Value>) -> pb::RecurringRun {
    let config = pb::RuntimeConfig {
        parameters: convert::struct_fields(&found.parameters),
        pipeline_root: found.root_given.clone(),
    };
    let has_config = !config.parameters.is_empty() || !config.pipeline_root.is_empty();
    let (mode, state) = if found.enabled {
        (Mode::Enable, State::Enabled)
    } else {
        (Mode::Disable, State::Disabled)
    };
    pb::RecurringRun {
        recurring_run_id: found.id.to_string(),
        display_name: found.display_name.clone(),
        description: found.description.clone(),
        pipeline_source: pipeline_source(found, spec),
        runtime_config: has_config.then_some(config),
        service_account: found.service_account.clone(),
        max_concurrency: found.limits.max_concurrency,
        trigger: trigger(&found.trigger),
        mode: mode as i32,
        created_at: convert::time(found.created_at),
        updated_at: convert::time(found.updated_at),
        status: state as i32,
        error: found
            .error
            .as_ref()
            .map(|error| convert::status(error.code, &error.message)),
        no_catchup: found.limits.no_catchup,
        namespace: convert::namespace(&found.namespace),
        experiment_id: found.experiment.to_string(),
        ..pb::RecurringRun::default()
    }
}

/// A schedule as lists show it: without its specification, and without large values.
fn listed(found: &RecurringRun, budget: &mut SizeBudget) -> pb::RecurringRun {
    let mut shown = recurring_run(found, None);
    if let Some(config) = &mut shown.runtime_config {
        config.parameters =
            convert::listed_parameters(&found.parameters, "GetRecurringRun", budget);
    }
    shown
}

impl Api {
    async fn set_enabled(
        &self,
        caller: &Caller,
        given: &str,
        enabled: bool,
    ) -> Result<Response<()>, Status> {
        let id = parsed("recurring_run_id", given)?;
        recurring_runs::set_enabled(&self.ctx, caller, id, enabled)
            .await
            .map(Response::new)
            .map_err(into_status)
    }
}

#[tonic::async_trait]
impl RecurringRunService for Api {
    async fn create_recurring_run(
        &self,
        request: Request<pb::CreateRecurringRunRequest>,
    ) -> Result<Response<pb::RecurringRun>, Status> {
        let caller = caller(&request)?;
        let given = request
            .into_inner()
            .recurring_run
            .ok_or_else(|| invalid("recurring_run", "RecurringRun is missing"))?;
        // The answer shows the specification as it was sent.
        let spec = match &given.pipeline_source {
            Some(GivenSource::PipelineSpec(spec)) => Some(Value::Object(struct_to_map(spec))),
            _ => None,
        };
        let made = recurring_runs::create_recurring_run(&self.ctx, &caller, create_of(given)?)
            .await
            .map_err(into_status)?;
        Ok(Response::new(recurring_run(&made, spec.as_ref())))
    }

    async fn get_recurring_run(
        &self,
        request: Request<pb::GetRecurringRunRequest>,
    ) -> Result<Response<pb::RecurringRun>, Status> {
        let caller = caller(&request)?;
        let id = parsed("recurring_run_id", &request.get_ref().recurring_run_id)?;
        let found = recurring_runs::get_recurring_run(&self.ctx, &caller, id)
            .await
            .map_err(into_status)?;
        let spec = found.spec.as_ref();
        Ok(Response::new(recurring_run(&found.run, spec)))
    }

    async fn list_recurring_runs(
        &self,
        request: Request<pb::ListRecurringRunsRequest>,
    ) -> Result<Response<pb::ListRecurringRunsResponse>, Status> {
        let caller = caller(&request)?;
        let pb::ListRecurringRunsRequest {
            page_token,
            page_size,
            sort_by,
            namespace,
            filter,
            experiment_id,
        } = request.into_inner();
        let experiment = parsed_opt("experiment_id", &experiment_id)?;
        let list = ListRequest {
            page_token,
            page_size,
            sort_by,
            filter,
        };
        let page =
            recurring_runs::list_recurring_runs(&self.ctx, &caller, &namespace, experiment, &list)
                .await
                .map_err(into_status)?;
        let mut budget = SizeBudget::for_list();
        let entries = page.entries.iter();
        Ok(Response::new(pb::ListRecurringRunsResponse {
            recurring_runs: entries.map(|found| listed(found, &mut budget)).collect(),
            total_size: i32::try_from(page.total).unwrap_or(i32::MAX),
            next_page_token: page.next.unwrap_or_default(),
        }))
    }

    async fn enable_recurring_run(
        &self,
        request: Request<pb::EnableRecurringRunRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        let given = &request.get_ref().recurring_run_id;
        self.set_enabled(&caller, given, true).await
    }

    async fn disable_recurring_run(
        &self,
        request: Request<pb::DisableRecurringRunRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        let given = &request.get_ref().recurring_run_id;
        self.set_enabled(&caller, given, false).await
    }

    async fn delete_recurring_run(
        &self,
        request: Request<pb::DeleteRecurringRunRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        let given = request.get_ref();
        let id = parsed("recurring_run_id", &given.recurring_run_id)?;
        // The runs stay whatever the policy says (recurring_run.proto), so only its name is checked.
        pb::DeletePropagationPolicy::try_from(given.propagation_policy).map_err(|_| {
            let problem = "it is one of FOREGROUND, BACKGROUND and ORPHAN";
            invalid("propagation_policy", problem)
        })?;
        recurring_runs::delete_recurring_run(&self.ctx, &caller, id)
            .await
            .map(Response::new)
            .map_err(into_status)
    }
}

#[tonic::async_trait]
impl ScheduleService for Api {
    async fn list_due_times(
        &self,
        request: Request<ListDueTimesRequest>,
    ) -> Result<Response<ListDueTimesResponse>, Status> {
        let caller = caller(&request)?;
        let given = request.get_ref();
        let id = parsed("recurring_run_id", &given.recurring_run_id)?;
        let count = match non_negative("page_size", given.page_size)? {
            0 => DUE_TIMES_DEFAULT,
            size => DUE_TIMES_MAX.min(size),
        };
        let found = recurring_runs::due_times(&self.ctx, &caller, id, count)
            .await
            .map_err(into_status)?;
        let times = found.times.iter().map(|at| timestamp(at.millis()));
        Ok(Response::new(ListDueTimesResponse {
            times: times.collect(),
            time_zone: found.zone,
        }))
    }
}
