//! Clients of the services, each with room for the largest answer: one large parameter of somebody
//! else's is enough to pass the library's limit of 4 MiB.

use ferroflow_proto::events::v1::event_service_client::EventServiceClient;
use ferroflow_proto::kfp::v2beta1::experiment_service_client::ExperimentServiceClient;
use ferroflow_proto::kfp::v2beta1::pipeline_service_client::PipelineServiceClient;
use ferroflow_proto::kfp::v2beta1::recurring_run_service_client::RecurringRunServiceClient;
use ferroflow_proto::kfp::v2beta1::run_service_client::RunServiceClient;
use ferroflow_proto::pipelines::v1::schedule_service_client::ScheduleServiceClient;
use ferroflow_proto::pipelines::v1::task_service_client::TaskServiceClient;
use ferroflow_proto::pipelines::v1::upload_service_client::UploadServiceClient;
use ferroflow_types::ValueLimit;

use super::Channel;

macro_rules! clients {
    ($($name:ident: $client:ident,)*) => {
        $(pub(super) fn $name(channel: &Channel) -> $client<Channel> {
            $client::new(channel.clone()).max_decoding_message_size(ValueLimit::MESSAGE_MAX)
        })*
    };
}

clients! {
    events: EventServiceClient,
    experiments: ExperimentServiceClient,
    pipelines: PipelineServiceClient,
    recurring_runs: RecurringRunServiceClient,
    runs: RunServiceClient,
    schedules: ScheduleServiceClient,
    tasks: TaskServiceClient,
    uploads: UploadServiceClient,
}
